"""The examples in docstrings run, and every public function and class has one."""

import builtins
import doctest
import importlib
import inspect

import pytest

# Packages whose names are public.
PACKAGES = (
    "gpt4roi_nb",
    "gpt4roi_nb.capture",
    "gpt4roi_nb.checkpoint",
    "gpt4roi_nb.data",
    "gpt4roi_nb.data.scenes",
    "gpt4roi_nb.evaluate",
    "gpt4roi_nb.failures",
    "gpt4roi_nb.models",
    "gpt4roi_nb.train",
    "gpt4roi_nb.widgets",
)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def public_objects() -> dict[str, object]:
    """Functions and classes that the packages export, by the name of the module that defines each, and its own."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                found[f"{thing.__module__}.{thing.__qualname__}"] = thing
    return found


# Examples that need FiftyOne and its database.
DATABASE = "gpt4roi_nb.failures."
WITHOUT_DATABASE = (f"{DATABASE}error_kinds.error_kinds", f"{DATABASE}rows.field_of")


def has_example(thing: object) -> bool:
    """Whether its docstring has an example, or that of one of its own methods."""
    tests = doctest.DocTestFinder(exclude_empty=True).find(thing, getattr(thing, "__qualname__", ""))
    return any(test.examples for test in tests)


PUBLIC = public_objects()
STORED = [name for name in PUBLIC if name.startswith(DATABASE) and name not in WITHOUT_DATABASE]


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in STORED])
def test_every_public_function_and_class_shows_an_example_that_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where an example writes its files
    run_examples(name)
    # doctest leaves the last value shown as `builtins._`; the import of FiftyOne fails if that is a list.
    assert not hasattr(builtins, "_")


@pytest.mark.slow  # the first import of FiftyOne takes its time
@pytest.mark.parametrize("name", STORED)
def test_examples_that_need_a_database_run(name, fiftyone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_examples(name)


def run_examples(name: str) -> None:
    thing = PUBLIC[name]
    assert has_example(thing), f"{name} has no >>> example"
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    said: list[str] = []
    try:
        for test in doctest.DocTestFinder().find(thing, name, globs={}):
            runner.run(test, out=said.append, clear_globs=False)
    finally:
        vars(builtins).pop("_", None)
    assert not runner.summarize(verbose=False).failed, "".join(said)
