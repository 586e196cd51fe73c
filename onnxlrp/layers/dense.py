"""Dense layers: Gemm, and MatMul with a constant on the right.

    z[…, o] = Σ_i x[…, i] · w[i, o] + b[o]          (Gemm with transB: w[o, i])

The adjoint multiplies by the other side of the same weight.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from onnxlrp.graph.build import Builder, One, Symbol, Value
from onnxlrp.graph.facts import attributes
from onnxlrp.layers.registry import Inputs, Linear, defines, layer_name, refuse, uncovered


@defines("Gemm")
def gemm(node: NodeProto, build: Builder) -> Linear:
    """alpha·x w + beta·b, on [N, I]."""
    given = attributes(node)
    if given.get("transA"):
        raise refuse(
            node, "transA=1 multiplies samples with each other", "export the layer as MatMul or Gemm, transA=0"
        )
    alpha, beta = float(given.get("alpha", 1.0)), float(given.get("beta", 1.0))
    w = build.scale(alpha, build.tensor(node.input[1]))
    has_bias = len(node.input) > 2 and node.input[2]
    b = build.scale(beta, build.tensor(node.input[2])) if has_bias else None
    return _dense(node, build, w, b, transposed=bool(given.get("transB")))


@defines("MatMul")
def matmul(node: NodeProto, build: Builder) -> Linear:
    """x w on [N, …, I], with a weight [I, O] that does not depend on the image."""
    facts = build.facts
    ranks = [len(facts.shape(i)) if facts.known(i) else 0 for i in node.input]
    if not facts.is_constant(node.input[1]) or ranks[1] != 2 or ranks[0] < 2:
        shapes = " · ".join(str(facts.shape(i) if facts.known(i) else "?") for i in node.input)
        reason = f"multiplies {shapes}: only a matrix of constants on the right is a dense layer"
        raise uncovered(node, build, reason)
    return _dense(node, build, build.tensor(node.input[1]), None, transposed=False)


def _dense(node: NodeProto, build: Builder, w: Symbol, b: Symbol, transposed: bool) -> Linear:
    x, z = build.tensor(node.input[0]), build.tensor(node.output[0])
    rows, columns = (int(d) for d in build.facts.shape(node.input[1]))
    sizes = (columns, rows) if transposed else (rows, columns)
    is_gemm = node.op_type == "Gemm"

    def multiply(v: Value, w: Value, turn: bool, bias: Symbol = None) -> Symbol:
        """v w, or v wᵀ where `turn`, plus a bias."""
        if is_gemm:
            addend = [bias] if isinstance(bias, Value) else []
            return build.op("Gemm", v, w, *addend, transB=int(turn), step="z" if bias else "")
        matrix = build.op("Transpose", w, perm=[1, 0]) if turn else w
        return build.add(build.op("MatMul", v, matrix), bias)

    def sums(v: Symbol, size: int) -> Symbol:
        """A(1) v: the sum over the last axis."""
        if not isinstance(v, Value):
            return build.scale(float(size), v)
        return build.op("ReduceSum", v, build.integers([-1]), keepdims=1)

    def apply(xs: Inputs, w: Symbol, b: Symbol) -> Symbol:
        (v,) = xs
        if v is None or w is None:
            return b
        if isinstance(w, One):
            return build.add(sums(v, sizes[0]), b)
        if isinstance(v, One):
            v = build.broadcast(build.constant(1.0, w), (1, sizes[0]))
        return multiply(v, w, transposed, b if not isinstance(b, One) else build.constant(np.ones(sizes[1]), w))

    def transpose(s: Value, w: Symbol) -> Inputs:
        if w is None:
            return (None,)
        if isinstance(w, One):
            return (sums(s, sizes[1]),)
        if sizes[0] == sizes[1]:
            # OpenVINO's CPU plugin is silently wrong where one square weight is multiplied from both sides.
            s, w = build.op("Neg", s), build.op("Neg", w)
        return (multiply(s, w, not transposed),)

    out_axis, in_axis = (0, 1) if transposed else (1, 0)
    return Linear(
        name=layer_name(node), kind="dense", nodes=(node,), inputs=(node.input[0],), output=node.output[0],
        x=(x,), w=w, b=b, z=z, apply=apply, transpose=transpose, outputs=sizes[1], out_axis=out_axis, in_axis=in_axis,
        channel=len(build.facts.shape(node.output[0])) - 1,
    )  # fmt: skip
