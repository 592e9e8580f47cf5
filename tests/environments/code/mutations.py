"""Broken variants of a function, by its syntax tree, in a fixed order: those likely to matter first."""

import ast
import copy
from collections.abc import Iterator

_SWAPS = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
_SWAPS |= {ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add}
_SWAPS |= {ast.Mod: ast.Mult, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.And: ast.Or, ast.Or: ast.And}


def variants(source: str, name: str) -> Iterator[tuple[str, str]]:
    """(what was done, the source) for every mutation of the function `name`."""
    tree = ast.parse(source)
    yield "return None", _replaced(tree, name, ast.Return(ast.Constant(None)))
    yield "return the first argument", _replaced(tree, name, ast.Return(_argument(tree, name)))
    for number, (what, _) in enumerate(_changes(_function(tree, name))):
        changed = copy.deepcopy(tree)
        list(_changes(_function(changed, name)))[number][1]()
        yield what, _text(changed)
    yield "return an empty list", _replaced(tree, name, ast.Return(ast.List([], ast.Load())))
    yield "raise", _replaced(tree, name, ast.Raise(ast.Name("ValueError", ast.Load())))


def _replaced(tree, name, body):
    changed = copy.deepcopy(tree)
    _function(changed, name).body = [body]
    return _text(changed)


def _changes(function):
    """(what, a function that does it in place) for each place; the order depends on the tree alone."""
    nodes = [node for node in ast.walk(function) if node is not function]
    yield from (("swapped comparison", _swapped(n.ops, 0)) for n in nodes if isinstance(n, ast.Compare))
    yield from (("another constant", _off_by_one(n)) for n in nodes if _is_number(n))
    yield from (
        ("swapped operator", _swapped(n, "op")) for n in nodes if type(getattr(n, "op", None)) in _SWAPS
    )
    returns = [n for n in nodes if isinstance(n, ast.Return) and n.value is not None]
    yield from (("no value", _returning(n, ast.Constant(None))) for n in returns)
    yield from (("value in a list", _returning(n, ast.List([n.value], ast.Load()))) for n in returns)
    for node in [function, *nodes]:
        for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if isinstance(body, list):
                yield from ((f"without line {s.lineno}", _removed(body, i)) for i, s in enumerate(body))


def _swapped(place, key):
    def change():
        old = place[key] if isinstance(place, list) else getattr(place, key)
        new = _SWAPS.get(type(old), type(old))()
        if isinstance(place, list):
            place[key] = new
        else:
            setattr(place, key, new)

    return change


def _off_by_one(node):
    return lambda: setattr(node, "value", node.value + 1)


def _returning(node, value):
    return lambda: setattr(node, "value", value)


def _removed(body, index):
    return lambda: body.__setitem__(index, ast.Pass())


def _is_number(node):
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _function(tree, name):
    return next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)


def _argument(tree, name):
    return ast.Name(_function(tree, name).args.args[0].arg, ast.Load())


def _text(tree):
    return ast.unparse(ast.fix_missing_locations(tree))
