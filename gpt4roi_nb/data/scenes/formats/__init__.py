"""The generated world on disk: images, exact masks, and the annotation files of every dataset, in their own forms.

`write.write_world` writes a world. Each of the other modules adds an image to the files of one dataset.
"""
