"""An environment of one's own: Manufactoria's problems, judged by whether a program is small and can be read.

`environment.name: examples.own_task:Readable` in a YAML file finds this class; `environment.options` become
its arguments. See docs/environments.md.
"""

from resd.environments.manufactoria import Manufactoria, ProgramError, extract_program, parse_program
from resd.records import Problem, Response, Verdict


class Readable:
    """Every reply should be a program that can be parsed, of at most `most_nodes` nodes."""

    name = "readable"

    def __init__(self, most_nodes: int = 20) -> None:
        self.most_nodes = most_nodes
        self.source = Manufactoria(prompt="compact", states=(2, 6))

    def problems(self, split: str) -> list[Problem]:
        return self.source.problems(split)

    def grade(self, problem: Problem, response: Response | str) -> Verdict:
        fault = self.fault(response if isinstance(response, str) else response.text)
        return Verdict(reward=float(not fault), passed=int(not fault), total=1, feedback=fault)

    def fault(self, reply: str) -> str:
        """What is wrong with a reply: the feedback that reflections and the teacher are shown."""
        program = extract_program(reply)
        if program is None:
            return "No program found."
        try:
            nodes = len(parse_program(program).nodes)
        except ProgramError as error:
            return f"Parse error: {error}"
        return "" if nodes <= self.most_nodes else f"{nodes} nodes; {self.most_nodes} are enough."
