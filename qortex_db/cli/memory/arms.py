"""`qortex-db arms`: what learners believe, and what fades or begins anew."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qortex_db.cli.shell import AsJson, Embedded, fail, group, opened, out, print_json, run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qortex_db import ArmState, Database, Posterior
    from qortex_db.repositories.arms.repository import AllContexts

_BAR: Final = 24
_WIDE: Final = 80  # in less, the bar leaves no room for names
_SCALE: Final = f">0{'95 %':^{_BAR - 2}}1"
_NAMED: Final = 5
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])", re.ASCII)

arms = group("The arms of learners: what is believed of them.")

Learner = Annotated[str, typer.Argument(help="The learner's name.")]
Context = Annotated[str | None, typer.Option(help="A JSON object. Default: the default context.")]
AllOfThem = Annotated[bool, typer.Option("--all-contexts", help="In every context.")]


@arms.command()
def top(
    learner: Learner,
    *,
    context: Context = None,
    k: Annotated[int, typer.Option("-k", help="How many.")] = 10,
    as_json: AsJson = False,
    embedded: Embedded = False,
) -> None:
    """Print the arms of the highest mean, with the interval that holds the true one with 95 %."""
    run(_top(learner, _context(context), k, as_json=as_json, embedded=embedded))


async def _top(
    learner: str, context: dict[str, Any] | None, k: int, *, as_json: bool, embedded: bool
) -> None:
    import asyncio

    from qortex_db import learning
    from qortex_db.cli import render

    async with opened(embedded=embedded) as db:
        found = dict(await db.arms.top(learner, k=k, context=context))
        # Half a second of numpy for a thousand arms: not on the event loop's thread.
        beliefs = await asyncio.to_thread(learning.posteriors, found.values())
        if as_json:
            pairs = zip(found, found.values(), beliefs, strict=True)
            listed = [_arm(*each) for each in pairs]
            print_json({"learner": learner, "context": context or {}, "arms": listed})
            return
        if found:
            title = render.escape(f"{learner}, in {_named(context)}")
            scale = (_SCALE,) if out().width >= _WIDE else ()
            table = render.table("arm", ">mean", *scale, ">interval", ">pulls", title=title)
            for arm, belief in zip(found, beliefs, strict=True):
                table.add_row(
                    render.escape(arm),
                    f"{belief.mean:.3f}",
                    *(_bar(belief) for _ in scale),
                    f"{belief.low:.3f}-{belief.high:.3f}",
                    f"{belief.pulls:,}",
                )
            out().print(table)
        else:
            nothing = f"{learner} has no arms in {_named(context)}."
            out().print(render.escape(nothing), highlight=False, soft_wrap=True)
        await _tell_contexts(db, learner, context)


@arms.command()
def show(
    learner: Learner,
    arm: Annotated[str, typer.Argument(help="The arm's id.")],
    *,
    context: Context = None,
    as_json: AsJson = False,
    embedded: Embedded = False,
) -> None:
    """Print all that is known of one arm; of one never observed, the prior."""
    from qortex_db import learning
    from qortex_db.cli import render

    given = _context(context)

    async def read() -> tuple[ArmState, Posterior]:
        async with opened(embedded=embedded) as db:
            state = await db.arms.get(learner, arm, context=given)
            return state, learning.posteriors([state])[0]

    state, belief = run(read())
    if as_json:
        print_json({"learner": learner, "context": given or {}, **_arm(arm, state, belief)})
        return
    facts = render.table("", "", title=f"{render.escape(arm)} of {render.escape(learner)}")
    facts.show_header = False
    for name, value in {
        "context": render.escape(_named(given)),
        "posterior": f"Beta({state.alpha:.6g}, {state.beta:.6g})",
        "mean": f"{belief.mean:.4f}",
        "95 % interval": f"{belief.low:.4f}-{belief.high:.4f}  {_bar(belief)}",
        "pulls": f"{state.pulls:,}",
        "total reward": f"{state.total_reward:,.6g}",
        "last updated": state.last_updated or "never",
    }.items():
        facts.add_row(f"[bold]{name}[/]", value)
    out().print(facts)


@arms.command()
def decay(
    learner: Learner,
    arm: Annotated[str | None, typer.Argument(help="Only this arm.")] = None,
    *,
    factor: Annotated[float | None, typer.Option(help="What is left: 0 to 1.")] = None,
    half_life: Annotated[
        str | None, typer.Option(help="Or, after which time half is left: 90s, 12h, 30d, 2w.")
    ] = None,
    context: Context = None,
    all_contexts: AllOfThem = False,
    embedded: Embedded = False,
) -> None:
    """Let evidence fade; the means stay."""
    from qortex_db import ALL_CONTEXTS

    where = _where(context, all_contexts=all_contexts)
    if (factor is None) == (half_life is None):
        fail("Pass one of --factor and --half-life.", status=2)
    by = {"factor": factor} if half_life is None else {"half_life": _seconds(half_life)}

    async def change() -> int:
        async with opened(embedded=embedded) as db:
            changed: Any = await db.arms.decay(learner, arm, context=where, **by)
        return sum(map(len, changed.values())) if where is ALL_CONTEXTS else len(changed)

    _done(run(change()), "decayed")


@arms.command()
def reset(
    learner: Learner,
    arm: Annotated[list[str] | None, typer.Argument(help="Only these arms.")] = None,
    *,
    context: Context = None,
    all_contexts: AllOfThem = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    embedded: Embedded = False,
) -> None:
    """Take arms back to the prior: what they learned is forgotten."""
    where = _where(context, all_contexts=all_contexts)
    if not yes:
        what = "every arm" if not arm else "1 arm" if len(arm) == 1 else f"{len(arm)} arms"
        _confirm(f"Take {what} of {learner} back to the prior, in {_named(where)}?")

    async def change() -> int:
        async with opened(embedded=embedded) as db:
            return await db.arms.reset(learner, arm or None, context=where)

    _done(run(change()), "back at the prior")


def _confirm(question: str) -> None:
    from qortex_db.messages import visible

    if not sys.stdin.isatty():
        fail("There is no terminal to ask on: pass --yes to go on.", status=2)
    typer.confirm(visible(question), abort=True)


def _done(count: int, what: str) -> None:
    out().print(f"{count:,} {'arm is' if count == 1 else 'arms are'} {what}.", highlight=False)


def _context(given: str | None) -> dict[str, Any] | None:
    if given is None:
        return None
    try:
        context = json.loads(given)
    except ValueError:
        context = None
    if not isinstance(context, dict):
        fail('--context is no JSON object, such as {"task": "sql"}.', status=2)
    return context


def _where(context: str | None, *, all_contexts: bool) -> dict[str, Any] | AllContexts | None:
    if all_contexts and context is not None:
        fail("Pass one of --context and --all-contexts.", status=2)
    from qortex_db import ALL_CONTEXTS

    return ALL_CONTEXTS if all_contexts else _context(context)


def _seconds(given: str) -> float:
    match = _DURATION.fullmatch(given)
    if match is None:
        fail("--half-life is a number with a unit: 90s, 15m, 12h, 30d or 2w.", status=2)
    return float(match[1]) * _SECONDS[match[2]]


def _named(context: dict[str, Any] | AllContexts | None) -> str:
    from qortex_db import ALL_CONTEXTS

    if context is ALL_CONTEXTS:
        return "every context"
    return f"the context {json.dumps(context)}" if context else "the default context"


def _arm(arm: str, state: ArmState, belief: Posterior) -> dict[str, Any]:
    interval = {"mean": belief.mean, "low": belief.low, "high": belief.high}
    return {"arm_id": arm, **interval, **state.to_dict()}


def _bar(belief: Posterior) -> str:
    """The interval and the mean on a line from 0 to 1."""
    low, mean, high = (
        min(int(at * _BAR), _BAR - 1) for at in (belief.low, belief.mean, belief.high)
    )
    cells: Iterable[str] = (
        "●" if place == mean else "━" if low <= place <= high else "·" for place in range(_BAR)
    )
    line = "".join(cells)
    return f"[dim]{line[:low]}[/][cyan]{line[low : high + 1]}[/][dim]{line[high + 1 :]}[/]"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


async def _tell_contexts(db: Database, learner: str, context: dict[str, Any] | None) -> None:
    """Where else the learner has arms: a context is easily forgotten."""
    from qortex_db import learning
    from qortex_db.cli import render
    from qortex_db.report import reading

    found = await reading.contexts(db.executor, [learner], each=_NAMED + 1, limit=_NAMED + 1)
    here = learning.context_hash(context)
    others = [one for one, _ in found if one.hash != here][:_NAMED]
    if not others:
        return
    out().print("Elsewhere:")
    for one in others:
        text = "default context" if one.readable == "{}" else one.readable or f"hash {one.hash}"
        out().print(
            f"  - {render.escape(text)}: {_count(one.arms, 'arm')}, {_count(one.pulls, 'pull')}",
            highlight=False,
            soft_wrap=True,
        )
