"""An interpreter of the part of EEL2, the language of JSFX, that exported effects are written in."""

from __future__ import annotations

import math
import operator
import re

import numpy as np

TOKEN = re.compile(r"\s*(//[^\n]*|[0-9]*\.?[0-9]+|[A-Za-z_$][A-Za-z0-9_]*|[-+*/]=|[<>=!]=|[-+*/^<>=?:;,()\[\]])")
CALLS = {
    "abs": abs,
    "cos": math.cos,
    "exp": math.exp,
    "floor": math.floor,
    "log10": math.log10,
    "max": max,
    "min": min,
    "sin": math.sin,
    "sqr": lambda x: x * x,
    "sqrt": math.sqrt,
}
LEVELS = [
    {"==": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": operator.truediv},
    {"^": math.pow},
]
CHANGES = {"=": None, "+=": operator.add, "-=": operator.sub, "*=": operator.mul, "/=": operator.truediv}


class Machine:
    """One effect: its variables, memory and functions; anything it does not know raises."""

    def __init__(self, text, sample_rate, sliders):
        parts = re.split(r"^@(\w+)$", text, flags=re.MULTILINE)
        self.declared = re.findall(r"^slider(\d+):([-0-9.]+)<", parts[0], flags=re.MULTILINE)
        self.memory, self.functions = {}, {}
        self.globals = {f"slider{number}": float(default) for number, default in self.declared}
        assert len(sliders) <= len(self.declared) <= 64
        self.globals |= {f"slider{number}": value for number, value in enumerate(sliders, 1)}
        self.globals |= {"srate": float(sample_rate), "$pi": math.pi}
        self.sections = {name: self.parse(code) for name, code in zip(parts[1::2], parts[2::2], strict=True)}

    def process(self, x):
        """Stereo `(2, samples)`."""
        frame = {"init": [], "slider": []} | self.sections
        for section in ("init", "slider"):
            self.sequence(frame[section], {})
        out = np.empty_like(x)
        for n, (left, right) in enumerate(x.T):
            self.globals |= {"spl0": float(left), "spl1": float(right)}
            self.sequence(self.sections["sample"], {})
            out[:, n] = self.globals["spl0"], self.globals["spl1"]
        return out

    # ---- text to closures of the local variables

    def parse(self, code):
        self.tokens, position = [], 0
        while code[position:].strip():
            match = TOKEN.match(code, position)
            assert match, f"no EEL2: {code[position : position + 40]!r}"
            position = match.end()
            if not match[1].startswith("//"):
                self.tokens.append(match[1].lower())
        self.tokens.append("")
        return self.statements("")

    def take(self, *expected):
        token = self.tokens.pop(0)
        assert not expected or token in expected, f"{token!r}, expected {expected}"
        return token

    def statements(self, end):
        found = []
        while self.tokens[0] != end:
            if self.tokens[0] == "function":
                self.function()
            else:
                found.append(self.expression())
            if self.tokens[0] != end:
                self.take(";")
        return found

    def function(self):
        self.take("function")
        name = self.take()
        parameters = self.names()
        local = self.names() if self.tokens[0] == "local" and self.take() else []
        self.take("(")
        body = self.statements(")")
        self.take(")")
        self.functions[name] = (parameters, local, body)

    def names(self):
        self.take("(")
        found = []
        while self.tokens[0] != ")":
            found.append(self.take())
            if self.tokens[0] == ",":
                self.take()
        self.take(")")
        return found

    def expression(self):
        target = self.binary(0)
        if self.tokens[0] in CHANGES:
            change = CHANGES[self.take()]
            return self.assignment(target, change, self.expression())
        if self.tokens[0] == "?":
            self.take()
            yes = self.expression()
            no = (lambda env: 0.0) if self.tokens[0] != ":" else (self.take(":"), self.expression())[1]
            return lambda env: yes(env) if target(env) else no(env)
        return target

    def assignment(self, target, change, value):
        store, load = target.store, target

        def assign(env):
            new = value(env)
            return store(env, new if change is None else change(load(env), new))

        return assign

    def binary(self, level):
        if level == len(LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while self.tokens[0] in LEVELS[level]:
            act = LEVELS[level][self.take()]
            left = self.both(act, left, self.binary(level + 1))
        return left

    @staticmethod
    def both(act, left, right):
        return lambda env: act(left(env), right(env))

    def unary(self):
        if self.tokens[0] == "-":
            self.take()
            inner = self.unary()
            return lambda env: -inner(env)
        return self.primary()

    def primary(self):
        token = self.take()
        if token == "(":
            body = self.block(self.statements(")"))
            self.take(")")
            return body
        if token[0].isdigit() or token[0] == ".":
            return lambda env: float(token)
        assert re.fullmatch(r"[a-z_$]\w*", token), token
        if self.tokens[0] == "(":
            return self.call(token)
        if self.tokens[0] == "[":
            self.take()
            index = self.expression()
            self.take("]")
            return self.cell(self.variable(token), index)
        return self.variable(token)

    def call(self, name):
        arguments = []
        self.take("(")
        while self.tokens[0] != ")":
            if name == "loop" and len(arguments) == 1:
                arguments.append(self.block(self.statements(")")))
            else:
                arguments.append(self.expression())
            if self.tokens[0] == ",":
                self.take()
        self.take(")")
        if name == "loop":
            count, body = arguments
            return lambda env: [body(env) for _ in range(int(count(env)))]
        if name in CALLS:
            return lambda env: float(CALLS[name](*(argument(env) for argument in arguments)))
        assert name in self.functions, f"{name} is no function"

        def run(env):
            parameters, local, body = self.functions[name]
            values = [argument(env) for argument in arguments]
            return self.sequence(body, dict(zip(parameters, values, strict=True)) | dict.fromkeys(local, 0.0))

        return run

    def block(self, statements):
        return lambda env: self.sequence(statements, env)

    def variable(self, name):
        def load(env):
            return env[name] if name in env else self.globals.setdefault(name, 0.0)

        def store(env, value):
            (env if name in env else self.globals)[name] = float(value)
            return value

        load.store = store
        return load

    def cell(self, base, index):
        def place(env):
            # EEL2 rounds addresses down after a small push.
            return math.floor(base(env) + index(env) + 1e-5)

        def load(env):
            return self.memory.get(place(env), 0.0)

        def store(env, value):
            self.memory[place(env)] = float(value)
            return value

        load.store = store
        return load

    @staticmethod
    def sequence(statements, env):
        value = 0.0
        for statement in statements:
            value = statement(env)
        return value
