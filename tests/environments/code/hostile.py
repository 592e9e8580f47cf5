"""Replies that try to win without solving: for functions `swap` and `half`, and as scripts."""

HOSTILE = {
    "forged results": """
import os
for fd in range(3, 64):
    try:
        os.write(fd, b'v[2, 1]\\nv[4, 3]\\nd\\n')
    except OSError:
        pass
os._exit(0)
""",
    "frames": """
import sys
def swap(pair):
    frame = sys._getframe()
    while frame:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if isinstance(value, (list, tuple)) and value and value != pair:
                return value
        frame = frame.f_back
half = swap
""",
    "garbage": """
import gc
def swap(pair):
    return [o for o in gc.get_objects() if isinstance(o, list) and len(o) == 2][:1]
half = swap
""",
    "equal to everything": """
class Any(list):
    def __eq__(self, other):
        return True
    __ne__ = __lt__ = __eq__
def swap(pair):
    return Any()
half = swap
""",
    "a number equal to everything": """
class Any(float):
    def __eq__(self, other):
        return True
    __sub__ = __lt__ = lambda *a: 0
def swap(pair):
    return Any(1)
half = swap
""",
    "closed output": """
import sys, os
sys.stdout.close()
os.close(1)
def swap(pair):
    return 1
half = swap
""",
    "exit": """
import sys
def swap(*a, **k):
    sys.exit(0)
half = swap
sys.exit(0)
""",
    "hard exit": """
import os
def swap(*a, **k):
    os._exit(0)
half = swap
""",
    "silence": "pass",
    "endless": """
def swap(*a, **k):
    while True:
        pass
half = swap
swap()
""",
    "the data file": """
import glob
for name in glob.glob('/**/rows.jsonl', recursive=True):
    print(open(name).read())
def swap(pair):
    return 0
half = swap
""",
    "another harness": """
import builtins, json
json.dumps = lambda *a, **k: '[2, 1]'
builtins.isinstance = lambda *a: True
def resd_encode(value):
    return 1.5
def swap(*a, **k):
    return 1
half = swap
""",
    "a tag": """
def swap(*a, **k):
    return {'resd_set': [[]]}
half = swap
""",
    "unknown": """
class Unknown:
    call = 0
def swap(*a, **k):
    return Unknown()
half = swap
""",
}
