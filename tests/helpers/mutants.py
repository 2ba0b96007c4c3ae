"""Small wrong changes of a module's source, and a module that runs with one of them."""

from __future__ import annotations

import ast
import copy
import difflib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_IDLE_KEYWORDS = ("strict", "device")
NAMES = {"argmax": "argmin", "argmin": "argmax", "max": "min", "min": "max", "any": "all", "all": "any"}
NAMES |= {"mean": "sum", "sum": "mean", "exp": "exp2", "log": "log2", "logsumexp": "amax"}


@dataclass(frozen=True)
class Mutant:
    """One wrong change.

    Attributes:
        what: The operator, in words.
        line: Line of the source that it changes.
        source: The whole module with the change.
        diff: The changed lines.
    """

    what: str
    line: int
    source: str
    diff: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module's source; what only words errors, annotates or documents is left alone."""
    tree = ast.parse(source)
    plain = ast.unparse(tree)
    seen = {plain}
    for number, node in enumerate(ast.walk(tree)):
        if number in _idle(tree):
            continue
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            target = list(ast.walk(changed))[number]
            change(target)
            text = ast.unparse(ast.fix_missing_locations(changed))
            if text in seen:
                continue
            seen.add(text)
            lines = difflib.unified_diff(plain.splitlines(), text.splitlines(), n=0, lineterm="")
            diff = "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))
            yield Mutant(what, getattr(node, "lineno", 0), text, diff)


def _idle(tree: ast.AST) -> set[int]:
    """Numbers of the nodes that no number depends on: annotations, imports, error sentences, log lines, docstrings."""
    if (known := getattr(tree, "idle", None)) is not None:
        return known  # type: ignore[no-any-return]
    idle: set[int] = set()
    numbers = {id(node): number for number, node in enumerate(ast.walk(tree))}

    def skip(node: ast.AST | None) -> None:
        if node is not None:
            idle.update(numbers[id(inner)] for inner in ast.walk(node) if id(inner) in numbers)

    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.Raise, ast.Assert, ast.JoinedStr)):
            skip(node)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            skip(getattr(node, "returns", None))
            for decorator in node.decorator_list:
                skip(decorator)
        if isinstance(node, ast.arg):
            skip(node.annotation)
        # `strict` makes an error of what does not happen; on one device nobody sees `device`.
        if isinstance(node, ast.keyword) and node.arg in _IDLE_KEYWORDS:
            skip(node)
        if isinstance(node, ast.AnnAssign):
            skip(node.annotation)
        if isinstance(node, ast.Expr) and (
            isinstance(node.value, ast.Constant) or ast.unparse(node.value).startswith(("logger.", "warnings."))
        ):
            skip(node)
        # An alias of a type is an annotation too.
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith(("NDArray", "logging.", "TypeVar")):
            skip(node)
    tree.idle = idle  # type: ignore[attr-defined]
    return idle


Change = tuple[str, Callable[[Any], None]]


def _become(node: ast.AST, other: ast.AST) -> None:
    """Turn a node of a tree into another one in its place."""
    node.__class__ = type(other)  # type: ignore[assignment]
    node.__dict__.clear()
    node.__dict__.update(copy.deepcopy(other).__dict__)


def _drop_condition(target: Any, place: int) -> None:
    target.values.pop(place)
    if len(target.values) == 1:
        _become(target, target.values[0])


def _set(name: str, value: Any) -> Callable[[Any], None]:
    return lambda node: setattr(node, name, value)


def _changes(node: ast.AST) -> Iterator[Change]:  # noqa: PLR0912 (one branch an operator)
    if isinstance(node, ast.BinOp):
        if other := ARITHMETIC.get(type(node.op)):
            yield "another operator", _set("op", other())
        yield "drop the right side", lambda target: _become(target, target.left)
        if not isinstance(node.op, (ast.Sub, ast.Div)):
            yield "drop the left side", lambda target: _become(target, target.right)
    elif isinstance(node, ast.UnaryOp):
        if not (isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant)):
            yield "drop the sign", lambda target: _become(target, target.operand)
    elif isinstance(node, ast.Compare):
        for kind in COMPARISONS.get(type(node.ops[0]), ()):
            yield "another comparison", lambda target, kind=kind: target.ops.__setitem__(0, kind())
    elif isinstance(node, ast.BoolOp):
        yield "and for or", _set("op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
        for place in (0, -1):
            yield "drop a condition", lambda target, place=place: _drop_condition(target, place)
    elif isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, (ast.IfExp, ast.If, ast.While)):
        yield "negate the condition", lambda target: setattr(target, "test", ast.UnaryOp(ast.Not(), target.test))
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, ast.Slice):
        if node.lower is not None and node.upper is None:
            yield "the other part", lambda target: _become(target, ast.Slice(None, target.lower))
        if node.upper is not None and node.lower is None:
            yield "the other part", lambda target: _become(target, ast.Slice(target.upper, None))
    elif isinstance(node, ast.AugAssign):
        if other := ARITHMETIC.get(type(node.op)):
            yield "another operator", _set("op", other())
        yield "drop the statement", lambda target: _become(target, ast.Pass())
    elif isinstance(node, ast.Break):
        yield "drop the statement", lambda target: _become(target, ast.Pass())


def _constants(value: Any) -> Iterator[Change]:
    if isinstance(value, bool):
        yield "the other truth", _set("value", not value)
    elif isinstance(value, int):
        yield "one more", _set("value", value + 1)
        yield (
            "one less",
            lambda target: _become(
                target, ast.UnaryOp(ast.USub(), ast.Constant(1)) if not value else ast.Constant(value - 1)
            ),
        )
    elif isinstance(value, float):
        yield "another number", _set("value", value * 1.1 + 0.1)


def _calls(node: ast.Call) -> Iterator[Change]:
    commutes = ast.unparse(node.func) in ("max", "min")
    if len(node.args) > 1 and not commutes and not any(isinstance(one, ast.Starred) for one in node.args[:2]):

        def swap(target: Any) -> None:
            target.args[0], target.args[1] = target.args[1], target.args[0]

        yield "swap two arguments", swap
    for place, keyword in enumerate(node.keywords):
        if keyword.arg and keyword.arg not in _IDLE_KEYWORDS:
            yield f"drop {keyword.arg}", lambda target, place=place: target.keywords.pop(place)
    if isinstance(node.func, ast.Attribute) and (other := NAMES.get(node.func.attr)):
        yield "another function", lambda target: setattr(target.func, "attr", other)
    if isinstance(node.func, ast.Name) and (other := NAMES.get(node.func.id)) in ("min", "max", "any", "all"):
        yield "another function", lambda target: setattr(target.func, "id", other)
    # What a method does to its object is left undone: `x.masked_fill(...)` becomes `x`.
    if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) not in ("torch", "np", "math", "stats"):
        yield "drop the call", lambda target: _become(target, target.func.value)


@contextmanager
def running(module: ModuleType, source: str) -> Iterator[None]:
    """Let a loaded module, and all who have imported from it, run another source while the context lasts.

    Functions keep their identity and get the other source's code; constants are replaced wherever they were imported.
    """
    other = ModuleType(module.__name__)
    other.__file__ = module.__file__
    # Dataclasses look their module up by name.
    loaded = sys.modules[module.__name__]
    sys.modules[module.__name__] = other
    try:
        exec(compile(source, str(module.__file__), "exec"), other.__dict__)
    finally:
        sys.modules[module.__name__] = loaded
    undo: list[Callable[[], None]] = []
    try:
        _take(module.__name__, vars(module), vars(other), undo)
        yield
    finally:
        for step in reversed(undo):
            step()


def _take(home: str, old: Any, new: Any, undo: list[Callable[[], None]]) -> None:
    for name, value in list(new.items()):
        before = old.get(name)
        if name.startswith("__") and name != "__init__":
            continue
        function, replacement = _function(before), _function(value)
        if function is not None and replacement is not None:
            if function.__module__ == home:
                _swap_code(function, replacement, undo)
        elif inspect.isclass(before) and before.__module__ == home:
            _take(home, vars(before), vars(value), undo)
        elif isinstance(before, (int, float, tuple)) and before != value and isinstance(old, dict):
            for place in [loaded for key, loaded in sys.modules.items() if key.startswith(("lm_eval_ape", "test_"))]:
                if vars(place).get(name) is before:
                    undo.append(lambda place=place, name=name, before=before: setattr(place, name, before))
                    setattr(place, name, value)


def _function(value: Any) -> FunctionType | None:
    value = getattr(value, "fget", None) or getattr(value, "func", None) or getattr(value, "__func__", None) or value
    value = inspect.unwrap(value) if callable(value) and not inspect.isclass(value) else value
    return value if isinstance(value, FunctionType) else None


def _swap_code(function: FunctionType, other: FunctionType, undo: list[Callable[[], None]]) -> None:
    before = function.__code__, function.__defaults__, function.__kwdefaults__

    def restore() -> None:
        function.__code__, function.__defaults__, function.__kwdefaults__ = before

    undo.append(restore)
    function.__code__, function.__defaults__ = other.__code__, other.__defaults__
    function.__kwdefaults__ = other.__kwdefaults__


def source_of(module: ModuleType) -> str:
    """A loaded module's source."""
    return Path(str(module.__file__)).read_text(encoding="utf-8")
