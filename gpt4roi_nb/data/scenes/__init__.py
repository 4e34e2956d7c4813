"""The generated world: table-top scenes, their rendering, and questions about them."""

from gpt4roi_nb.data.scenes.records import scene_records
from gpt4roi_nb.data.scenes.scene import Scene, SceneObject, make_scene, scene_seed, scenes

__all__ = ["Scene", "SceneObject", "make_scene", "scene_records", "scene_seed", "scenes"]
