"""The examples in docstrings run, and every public function and class has one."""

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


def has_example(thing: object) -> bool:
    """Whether its docstring has an example, or that of one of its own methods."""
    tests = doctest.DocTestFinder(exclude_empty=True).find(thing, getattr(thing, "__qualname__", ""))
    return any(test.examples for test in tests)


PUBLIC = public_objects()


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_function_and_class_shows_an_example_that_runs(name, tmp_path, monkeypatch):
    thing = PUBLIC[name]
    assert has_example(thing), f"{name} has no >>> example"
    monkeypatch.chdir(tmp_path)  # where an example writes its files
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    said: list[str] = []
    for test in doctest.DocTestFinder().find(thing, name, globs={}):
        runner.run(test, out=said.append, clear_globs=False)
    assert not runner.summarize(verbose=False).failed, "".join(said)
