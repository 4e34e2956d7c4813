"""The command line of the examination: `python -m gpt4roi_nb.demo.check --scenes 300 --seed 321`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gpt4roi_nb import commands
from gpt4roi_nb.demo.check.answerer import model_answerer
from gpt4roi_nb.demo.check.bars import missed
from gpt4roi_nb.demo.check.figures import measure
from gpt4roi_nb.demo.check.tables import table


def main(arguments: Sequence[str] | None = None) -> None:
    """Examine a checkpoint as the command line says, and print its figures."""
    parser = commands.demo_check()
    options = parser.parse_args(arguments)

    from gpt4roi_nb import GPT4RoI

    try:
        gpt4roi = GPT4RoI.from_pretrained(options.checkpoint)
        if options.scenes_only:
            figures = measure(model_answerer(gpt4roi), options.scenes, options.seed)
        else:
            from gpt4roi_nb.demo.check.examine import examine  # imports the benchmarks' scorers, which are heavy

            figures = examine(gpt4roi, options.scenes, options.seed)
    except (ValueError, FileNotFoundError, ImportError) as error:
        parser.error(str(error))
    if options.json:
        print(json.dumps(figures))
        return
    print(table(figures))
    for line in missed(figures, reached={}):
        print(f"below its bar: {line}")


if __name__ == "__main__":
    main()
