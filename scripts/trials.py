"""Shows, exports, annotates and compares the trials of searches.

python scripts/trials.py --store=runs/quickstart --sort=reward --limit=10
python scripts/trials.py --store=runs/quickstart --show=3
python scripts/trials.py --store=runs/quickstart --mark=3 --note='try with more steps'
python scripts/trials.py --store=runs/quickstart --reset=3,7
python scripts/trials.py --store=runs/quickstart --export=trials.csv.gz
python scripts/trials.py --store=runs/ppo --compare=runs/random
python scripts/trials.py --store=postgresql://user@host/database --searches
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from absl import flags

from mnasdet import terminal
from mnasdet.errors import UserError
from mnasdet.scripts import command

FLAGS = flags.FLAGS

# The older words for the two; a trial once had an mAP and a latency.
_OLD_SORTS = {"mAP": "accuracy", "latency": "cost"}

# The names of trial_store.TrialState, which loads too much for --help.
_STATES = ["pending", "running", "complete", "failed", "rejected"]

command.define_format_flag()
command.define_required(
    "store",
    "Folder of a search, trials.db file or database URL. A password is better kept in ~/.pgpass "
    "or PGPASSWORD than in the URL.",
)
flags.DEFINE_string("search_name", None, "Needed where the store holds several searches.")
flags.DEFINE_enum(
    "sort",
    "number",
    ["number", "reward", "accuracy", "cost", *_OLD_SORTS],
    "Best first; mAP and latency are accuracy and cost.",
)
flags.DEFINE_enum("state", None, _STATES, "Only trials in this state.")
flags.DEFINE_integer("limit", 0, "So many trials at most; 0: all.", lower_bound=0)
flags.DEFINE_bool("searches", False, "The searches of the store.")
flags.DEFINE_integer("show", None, "Number of a trial to show in full.", lower_bound=0)
flags.DEFINE_string("export", None, "File for all trials: .csv or .json, also with .gz or .xz.")
flags.DEFINE_integer("mark", None, "Number of a trial that --note is for.", lower_bound=0)
flags.DEFINE_string("note", None, "Text for --mark; empty: removes the note.")
flags.DEFINE_list(
    "reset",
    None,
    "Numbers of failed trials, or failed for all of them, that the search is to train once more "
    "when it goes on with --resume.",
)
flags.DEFINE_string("compare", None, "Another store, as --store, to put beside this one.")
flags.DEFINE_string("compare_search_name", None, "As --search_name, of --compare.")

_NOTE_CHARACTERS = 40
_ERROR_CHARACTERS = 60


def main() -> None:
    values = {name: FLAGS[name].value for name in _ACTIONS}
    # Not by truth: --show=0 is given.
    given = [name for name, value in values.items() if value is not None and value is not False]
    if len(given) > 1:
        raise UserError(f"give one of {', '.join(f'--{name}' for name in given)}")
    if (FLAGS.mark is None) != (FLAGS.note is None):
        raise UserError("--mark and --note belong together")
    if FLAGS.compare_search_name and not FLAGS.compare:
        raise UserError("--compare_search_name needs --compare")
    result, print_text = (_ACTIONS[given[0]] if given else list_trials)()
    if FLAGS.format == "json":
        command.print_json(result)
    else:
        print_text(result)


# The JSON of an action, and the function that prints it as text.
Result = tuple[dict[str, Any], Callable[[dict[str, Any]], None]]


def list_trials() -> Result:
    from mnasdet.search import axes, chain
    from mnasdet.search.trials import trial_export

    with _open() as store:
        description = store.description()
        chained, weighed = chain.from_description(description), axes.from_description(description)
        rows = [
            trial_export.summary(trial)
            | ({"stage": chained.stage(trial)} if chained.is_chained else {})
            for trial in chained.aligned(store.trials())
        ]
        name = store.search_name
    shown = [row for row in rows if FLAGS.state in (None, row["state"])]
    shown.sort(key=_sort_key)
    shown = shown[: FLAGS.limit or None]
    result = {
        "search_name": name,
        "num_trials": len(rows),
        "objective": weighed.objective,
        "unit": weighed.unit,
        "trials": shown,
    }
    return result, _print_trials


def _sort_key(row: dict[str, Any]) -> tuple[bool, float, int]:
    """Sorts the best first; trials without the value come last, by number."""
    name = _OLD_SORTS.get(FLAGS.sort, FLAGS.sort)
    value = row[name]
    # More is better for these two alone.
    sign = -1 if name in ("reward", "accuracy") else 1
    return value is None, sign * (value or 0), row["number"]


def _print_trials(result: dict[str, Any]) -> None:
    rows = result["trials"]
    of = "" if len(rows) == result["num_trials"] else f" of {result['num_trials']}"
    print(f"search {terminal.one_line(result['search_name'])}: {len(rows)}{of} trials")
    from mnasdet.search import axes

    weighed = axes.from_description(result)
    cost = f"{weighed.cost} ms" if weighed.unit == "ms" else weighed.cost
    # Only searches of two stages say of which one a trial is.
    stage = ["stage"] if any("stage" in row for row in rows) else []
    columns = ["state", "reward", weighed.accuracy, cost, "duplicate of", "note", "error"]
    _print_table(
        ["number", *stage, *columns],
        [
            [
                str(row["number"]),
                *(str(row[name]) for name in stage),
                row["state"],
                _number(row["reward"]),
                _number(row["accuracy"]),
                _number(row["cost"], 3),
                "" if row["duplicate_of"] is None else str(row["duplicate_of"]),
                _shortened(row["note"], _NOTE_CHARACTERS),
                _shortened(row["error"], _ERROR_CHARACTERS),
            ]
            for row in rows
        ],
        left={"state", "note", "error"},
    )


def list_searches() -> Result:
    from mnasdet.search.trials import trial_store

    location = _location(FLAGS.store)
    searches = [
        {
            "name": summary.name,
            "created": f"{summary.created.isoformat()}Z",
            "trials": summary.num_trials,
            **{state.value: summary.counts.get(state, 0) for state in trial_store.TrialState},
            "duplicates": summary.duplicates,
            "best_reward": summary.best_reward,
        }
        for summary in trial_store.list_searches(location, _unnamed(location))
    ]
    return {"searches": searches}, _print_searches


def _print_searches(result: dict[str, Any]) -> None:
    rows = [
        [str(value) for name, value in search.items() if name != "best_reward"]
        + [_number(search["best_reward"])]
        for search in result["searches"]
    ]
    header = ["name", "created", "trials", *_STATES, "duplicates", "best reward"]
    _print_table(header, rows, left={"name", "created"})


def show() -> Result:
    from mnasdet.search.trials import trial_export

    with _open() as store:
        trial = store.trial(FLAGS.show)
    described = trial_export.to_dict(trial)
    # The text, which is long, stays last.
    text = described.pop("architecture")
    structure = trial_export.structure(text)
    return described | {"structure": structure, "architecture": text}, _print_trial


def _print_trial(result: dict[str, Any]) -> None:
    for name, value in result.items():
        if name == "metrics":
            print("metrics:")
            for metric, figure in value.items():
                print(f"  {terminal.one_line(metric)}: {figure}")
        elif name == "architecture":
            print(f"architecture:\n{textwrap.indent(value.rstrip(), '  ')}")
        elif value is not None:
            # Indented, no line of a note is taken for a field.
            lines = "\n  ".join(str(value).splitlines())
            print(f"{name.replace('_', ' ')}: {lines}")


def export() -> Result:
    from mnasdet.search.trials import trial_export

    with _open() as store:
        num_trials = trial_export.write(FLAGS.export, store)
    return {"path": FLAGS.export, "trials": num_trials}, lambda result: print(
        f"{result['path']}: {result['trials']} trials"
    )


def mark() -> Result:
    with _open() as store:
        trial = store.update(store.trial(FLAGS.mark), note=FLAGS.note or None)
    return {"number": trial.number, "note": trial.note}, lambda result: print(
        f"trial {result['number']}: {result['note'] or 'no note'}"
    )


def reset() -> Result:
    from mnasdet.search.trials import reopening

    with _open() as store:
        if FLAGS.reset == ["failed"]:
            numbers = reopening.failed(store.trials())
        elif all(text.strip().isdecimal() for text in FLAGS.reset):
            numbers = [int(text) for text in FLAGS.reset]
        else:
            raise UserError(f"--reset is {','.join(FLAGS.reset)}; numbers of trials, or failed")
        reopened = reopening.reopen(store, numbers)
    return {"numbers": [trial.number for trial in reopened]}, _print_reset


def _print_reset(result: dict[str, Any]) -> None:
    numbers = ", ".join(map(str, result["numbers"]))
    print(f"open again: trials {numbers}" if numbers else "no trial has failed")


def compare() -> Result:
    from mnasdet.search import axes, chain, comparison
    from mnasdet.search.trials import trial_database

    places = [FLAGS.store, FLAGS.compare]
    with _open() as first, _open("compare", "compare_search_name") as second:
        names = [store.search_name for store in (first, second)]
        descriptions = [store.description() for store in (first, second)]
        weighed = [axes.from_description(description) for description in descriptions]
        trials = [
            chain.from_description(description).aligned(store.trials())
            for description, store in zip(descriptions, (first, second), strict=True)
        ]
        result = comparison.compare(trials)
    for search, place, name, own in zip(result["searches"], places, names, weighed, strict=True):
        search.update(
            store=trial_database.shown(place),
            search_name=name,
            objective=own.objective,
            unit=own.unit,
        )
    return result, _print_comparison


def _print_comparison(result: dict[str, Any]) -> None:
    from mnasdet.search import axes

    searches = result["searches"]
    # Columns are told apart by what differs.
    heading = "store" if searches[0]["search_name"] == searches[1]["search_name"] else "search_name"
    counts = ["trials", "complete", "failed", "rejected", "duplicates", "architectures"]
    rows = [[name, *(str(search[name]) for search in searches)] for name in counts]
    for name in ("best_reward", "best_accuracy", "hypervolume"):
        rows.append([name.replace("_", " "), *(_number(search[name]) for search in searches)])
    for step in searches[0]["best_reward_after"]:
        bests = [_number(search["best_reward_after"][step]) for search in searches]
        rows.append([f"best reward after {step}", *bests])
    _print_table(["", *(search[heading] for search in searches)], rows, left={""})
    print(f"{result['shared_architectures']} architectures are in both")
    weighed = [axes.from_description(search) for search in searches]
    for what, names in (
        ("costs", {own.unit for own in weighed}),
        ("accuracies", {own.accuracy for own in weighed}),
    ):
        # Milliseconds times mAP and multiply-adds times mAP are no areas of one kind.
        if len(names) > 1:
            print(f"{what} are in {' and in '.join(sorted(names))}: hypervolumes do not compare")
            return
    unit, metric = weighed[0].unit, weighed[0].accuracy
    print(
        f"hypervolume in {metric} x {unit}, down to {metric} 0 and out to "
        f"{result['reference']['cost']:.3f} {unit}, the largest of a trial"
    )


_ACTIONS: dict[str, Callable[[], Result]] = {
    "searches": list_searches,
    "show": show,
    "export": export,
    "mark": mark,
    "reset": reset,
    "compare": compare,
}


def _open(store_flag: str = "store", name_flag: str = "search_name") -> closing[Any]:
    """Opens the search that two flags name; a single one needs no name."""
    from mnasdet.search.trials import trial_store

    location, name = _location(FLAGS[store_flag].value), FLAGS[name_flag].value
    if not name:
        searches = trial_store.list_searches(location, _unnamed(location))
        names = [summary.name for summary in searches]
        if len(names) != 1:
            held = f"several searches; set --{name_flag} to one of {', '.join(names)}"
            raise UserError(f"--{store_flag} holds {held if names else 'no search yet'}")
        name = names[0]
    # Never created: a mistyped name must not leave an empty search.
    return closing(trial_store.TrialStore(location, name, create=False))


def _location(store: str) -> str:
    """Returns where the trials are: a folder stands for the file in it."""
    # A URL is no path, even if a folder of that name exists.
    is_folder = "://" not in store and Path(store).is_dir()
    return str(Path(store) / "trials.db") if is_folder else store


def _unnamed(location: str) -> str:
    """Returns the name for the only search of a version 1 file: that of its folder."""
    return "search" if "://" in location else Path(location).resolve().parent.name or "search"


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _shortened(text: str | None, characters: int) -> str:
    line = terminal.one_line(text or "")
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: set[str]) -> None:
    """Prints columns as wide as they need be, numbers to the right and those in `left` to the
    left."""
    shown = [list(map(terminal.one_line, row)) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = [
            f"{cell:<{width}}" if name in left else f"{cell:>{width}}"
            for cell, width, name in zip(row, widths, header, strict=True)
        ]
        print("  ".join(cells).rstrip())


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()
