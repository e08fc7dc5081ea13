"""What a random program may compute from its variables: expressions, by the kind of operation."""

import re

import numpy as np

from .writer import Unsuited, listed

SMOOTH = listed("""
    np.tanh({a}); np.sin({a}); np.cos({a} * {n}); np.exp({a} * 0.3); np.exp(-({a} ** 2));
    1 / (1 + np.exp(-{a})); np.log1p(np.exp({a})); np.log({a} ** 2 + 0.5); {a} ** 2;
    np.sqrt({a} ** 2 + 0.1); {a} ** 3; np.square({a}); np.arctan({a}); {a} * np.tanh({a});
    {a} / (1 + {a} ** 2); np.power({a}, 2); (abs({a}) + 0.3) ** 1.5; np.expm1({a} * 0.5);
    np.logaddexp({a}, 0); -{a}; {a} * {n}; {n} - {a}; {a} / {n}; {a} + {n};
    {a} / (1 + np.exp(-1.7 * {a})); np.reciprocal(2 + np.sin({a})); np.cbrt(2 + {a} ** 2);
    np.sinh({a} * 0.2); 2.0 ** ({a} * 0.5); np.float_power({a} ** 2 + 1, 0.7); +{a};
    np.negative({a}); np.subtract(1, {a}); np.multiply({a}, {a}); {a} * {a} * {a}; np.arcsinh({a});
    np.exp2({a} * 0.3); np.log2({a} ** 2 + 1); np.true_divide({a}, 3)
""")

KINKED = listed("""
    np.maximum({a}, {c}); np.minimum({a}, {c}); np.clip({a}, {c}, {c} + 0.5); abs({a});
    abs({a} - {c}); np.abs({a} - {c}); np.where({a} > {c}, {a}, 0.1 * {a} + 0.9 * {c});
    ({a} - {c}) * ({a} > {c}); np.maximum({a} - {c}, 0); np.maximum({a} - {c}, 0) ** 2;
    np.where({a} <= {c}, np.exp(np.minimum({a} - {c}, 1)) - 1, {a} - {c}); np.fmax({a}, {c});
    np.sqrt(abs({a} - {c})); np.maximum(0, 1 - {a}); np.clip({a}, -1, {c}); np.fabs({a});
    np.maximum(0.01 * {a}, {a}); {a} * (abs({a}) <= 1) + np.sign({a}) * (abs({a}) > 1);
    np.where(abs({a} - {c}) < 1, ({a} - {c}) ** 2 / 2, abs({a} - {c}) - 0.5);
    np.minimum(np.maximum({a}, {c}), {c} + 0.2); np.hypot({a} - {c}, 0);
    np.where({a} > {c}, {a} ** 2, 0); np.maximum({a}, 0) - np.log1p(np.exp(-abs({a})))
""")

JUMPING = listed("""
    np.where({a} > {c}, {a} + 1, {a}); np.where({a} >= {c}, {a}, 0); np.floor({a} * 3) + {a};
    np.sign({a} - {c}) * {a}; np.round({a}, 1) + {a}; ({a} > {c}) * 1.0; {a} % 1.0;
    np.heaviside({a} - {c}, 0.5) * {a}; np.trunc({a}) + {a} ** 2; {a} // 1 + {a};
    ({a} > {c}).astype(float) + {a}; np.where(np.logical_and({a} > {c}, {a} < 1), 1.0, {a});
    np.where(({a} < {c}) | ({a} > 0.5), {a}, 2 * {a}); np.ceil({a}) * {a}; np.fmod({a}, 0.7);
    ({a} != {c}) * {a}; np.rint({a} * 2) - {a}; {a}.astype(int) + {a}; np.copysign(1.0, {a});
    np.where(abs({a} - {c}) < 2e-5, 0.1, {a}); {a} + 0.01 * (abs({a} - {c}) < 1e-5);
    ({a} == {c}) + {a}; np.where(({a} > {c}) & ({a} < {c} + 3e-5), 0.1, {a});
    {a} * (np.floor({a} * 1e4) % 2)
""")

POLAR = listed("""
    1 / ({a} - {c}); np.log(abs({a} - {c})); np.log(abs({a})); {a} / ({a} - {c}); ({a} - {c}) ** -2;
    np.sqrt(abs({a})); abs({a}) ** 0.3; np.tan({a}); 1 / {a}; np.arcsin(np.clip({a}, -1, 1));
    np.log(abs({a}) + 1e-7); np.arctanh(np.tanh({a}))
""")

STEEP = listed("""
    np.sin({a} * 1e4); np.exp(-(({a} - {c}) / 2e-4) ** 2); np.tanh(({a} - {c}) * 1e4);
    1 / (1 + np.exp(-5e3 * ({a} - {c}))); np.cos({a} / 1e-3); ({a} - {c}) ** 5 * 100;
    np.exp(1e3 * np.minimum({a} - {c}, 0)); 1 / (1e-6 + ({a} - {c}) ** 2) * 1e-6;
    np.log1p(np.exp(({a} - {c}) * 1e3)) / 1e3; np.sqrt(({a} - {c}) ** 2 + 1e-9);
    np.arctan({a} * 1e5);
    np.maximum({a} - {c}, 0) ** 3 * 1e4; np.log(({a} - {c}) ** 2 + 1e-8); {a} ** 9; {a} ** 20 * 1e-3
""")
"""Smooth, but not over a step."""

BINARY = listed("""
    {a} + {b}; {a} - {b}; {a} * {b}; {a} / ({b} ** 2 + 1); np.maximum({a}, {b});
    np.minimum({b}, {a}); np.where({a} > {b}, {a}, {b}); np.hypot({a}, {b}); {b} - {a};
    np.arctan2({a}, {b} ** 2 + 1); np.logaddexp({a}, {b}); {a} * ({b} > 0); {b} * {a};
    {a} ** 2 - {b} * {a}; ({a} - {b}) ** 2; np.add({a}, {b}); np.multiply({b}, {a});
    np.subtract({a}, {b}); abs({a} - {b}); {a} + 0.1 * {b}; {a} / {b}; np.fmin({a}, {b});
    (abs({a}) + 0.1) ** {b}; np.where({b} > 0, {a}, -{a}); np.where({a} > {c}, {b}, {a});
    np.where({a} > {c}, {a}, {b} * 1.0); np.exp({a} * 0.1) * {b}; {a} * np.tanh({b}) + {a};
    np.maximum({a}, 0) * {b} + {a}; np.divide({a}, 1 + abs({b}))
""")

REDUCING = listed("""
    {a}.sum({axis}); np.sum({a}, {axis}); {a}.mean({axis}); np.mean({a}, {axis}); {a}.max({axis});
    np.max({a}, {axis}); {a}.min({axis}); np.amin({a}, {axis}); {a}.var({axis});
    np.std({a}, {axis}) + {n}; np.prod({a}, {axis}); {a}.prod({axis}); np.linalg.norm({a}, {axis});
    np.median({a}, {axis}); np.log(np.exp({a}).sum({axis})); np.sqrt(np.sum({a} ** 2, {axis}));
    np.add.reduce({a}, {axis}); abs({a}).sum({axis}); ({a} > {c}).mean({axis}) + {a}.sum({axis});
    np.where({a} > {c}, {a}, 0).sum({axis}); np.max({a}, {axis}) - np.min({a}, {axis});
    ({a} == {a}.max({axis}, keepdims=True)).sum({axis}) * {a}.max({axis})
""")

KEEPING = listed("""
    {a} - {a}.mean({axis}, keepdims=True); {a} - np.max({a}, {axis}, keepdims=True);
    {a} / ({a}.std({axis}, keepdims=True) + 0.1); {a} / {a}.sum({axis}, keepdims=True);
    np.exp({a}) / np.exp({a}).sum({axis}, keepdims=True);
    np.exp({a} - {a}.max({axis}, keepdims=True));
    ({a} - {a}.mean({axis}, keepdims=True)) / np.sqrt({a}.var({axis}, keepdims=True) + 1e-5);
    {a} - np.log(np.exp({a}).sum({axis}, keepdims=True));
    {a} / np.sqrt((({a}) ** 2).sum({axis}, keepdims=True) + 1e-6);
    {a} / np.linalg.norm({a}, {axis}, keepdims=True); np.cumsum({a}, {axis}); np.sort({a}, {axis});
    np.cumprod({a} * 0.5, {axis}); {a}.cumsum({axis}); np.diff({a}, 1, {axis});
    np.flip({a}, {axis}); np.roll({a}, 1, {axis}); np.expand_dims({a}, {axis});
    np.repeat({a}, 2, {axis}); np.take({a}, [0, -1, 0], {axis}); np.concatenate([{a}, {a}], {axis});
    np.stack([{a}, {a} ** 2], {axis}); np.swapaxes({a}, 0, {axis}); np.moveaxis({a}, {axis}, 0);
    {a} * (np.argmax({a}, {axis}) == 0).sum()
""")

MOVING = listed("""
    {a}.reshape(-1); {a}.T; {a}.ravel(); {a}.copy(); {a}[1:]; {a}[::-1]; {a}[::2]; {a}[:, 0];
    {a}[..., -1]; {a}[[0, -1, 0]]; {a}[np.array([0, 1])]; {a}[None]; {a}[..., np.newaxis];
    np.concatenate([{a}, {b}]); np.stack([{a}, {b}]); {a}[:, ::-1]; np.hstack([{a}, {b}]);
    np.vstack([{a}, {b}]); np.tile({a}, 2); np.roll({a}, 1); np.pad({a}, 1); np.atleast_2d({a});
    np.broadcast_to({a}, (2, *{a}.shape)); np.tril({a}); np.diag({a}); np.transpose({a});
    {a}.flatten(); np.ravel({a}, 'F'); {a}[0]; {a}[-1]; np.reshape({a}, -1); {a}.reshape(-1, 2);
    {a}.reshape(2, -1); np.squeeze({a}); np.copy({a}); {a}.astype(float);
    {a}.astype(np.float64, copy=False); np.nan_to_num({a}); {a}.squeeze(); {a}[{a}.shape[0] // 2];
    {a}.transpose(); {a}.swapaxes(0, -1); {a}.repeat(2); {a}.take([0, 1]); np.trace({a});
    np.fliplr({a}); np.rot90({a}); np.triu({a}, 1); np.column_stack([{a}, {b}]); {a} * 1;
    np.dstack([{a}, {b}]);
    {a}[tuple([0])]; {a}.T.copy(); np.copy({a}.T); sum(v for v in {a}); np.zeros_like({a}) + {b};
    np.ones_like({a}) * {b}; np.outer({a}, {b}); {a}.astype(np.float32).astype(float)
""")

UNUSUAL = listed("""
    np.average({a}, {axis}); np.ptp({a}, {axis}); np.maximum.reduce({a}, {axis});
    np.nansum({a}, {axis}); np.gradient({a}, axis={axis}); np.append({a}, {b}); np.delete({a}, 0);
    np.split({a}, 2)[0]; np.array({a}); np.asarray({a}); np.ascontiguousarray({a}.T);
    np.asarray({a} * 1.0); np.array({a}, copy=False); np.array([{a}.sum(), {b}.sum()]);
    np.array([v * 2 for v in {a}]); np.r_[{a}, {b}]; np.full_like({a}, {a}.mean());
    np.broadcast_arrays({a}, {b})[0]; np.searchsorted([0.0], {a}) + {a}; np.unique({a});
    np.interp({a}, [-1, 0, 1], [0, 1, 0.5]); np.real({a}); np.partition({a}, 0); {a}.view();
    {a}.copy('K'); {a}.ravel('K'); {a}.item(0) * {a}; np.float64({a}.sum());
    np.linalg.inv({a} @ {a}.T + np.eye(len({a}))); np.linalg.det({a} @ {a}.T + np.eye(len({a})));
    np.linalg.solve({a} @ {a}.T + np.eye(len({a})), {a}); np.convolve({a}, [1, -1, 2]);
    np.nextafter({a}, {b}); {a}.clip({c}); {a}.transpose(0); abs({a} + 1j * {b});
    np.exp(1j * {a}).real; ({a} + 0.5j * {b}).imag * {a}; np.abs(({a} + 1j) ** 2);
    np.angle({a} + 2j); np.sqrt({a} + 0j).real; (({a} + 1j * {b}) * ({a} - 1j * {b})).real;
    np.abs(np.fft.fft({a})); np.fft.fft({a}).real; np.conj({a} + 1j * {b}).imag;
    {a}.astype(np.uint8) + {a}; {a}.astype(np.int32) * {b}; ({a} > {c}) * ({b} > 0) * {a};
    (({a} > {c}) & ({b} > 0)) * {a}; ~({a} > {c}) * {a}; (({a} > {c}) ^ ({b} > 0)) + {a};
    ({a} > {c}) + ({b} > 0) + {a}; -({a} > {c}).astype(int) * {a}; np.logical_not({a} > {c}) * {b};
    1 - ({a} > {c}) + {a}; ({a} > {c}).sum() * {a}.sum(); np.count_nonzero({a} > {c}) + {a};
    ({a}.astype(np.uint8) - 1) * 0.01 + {a}; np.bool_({a}.sum() > 0) * {a};
    {a}.astype(np.float32) * {b}; {a}.astype('f4').sum() + {a}.sum(); np.float32(0.1) * {a};
    np.sum({a}, dtype=np.float32) + {a}; {a}.astype(np.float16).astype(float);
    np.einsum('i,i,i->i', {a}, {a}, {a}); np.einsum('ij,ij,ij->', {a}, {a}, {a});
    np.einsum('ii->i', {a} @ {a}.T); np.einsum({a}, [0, 1], {a}, [0, 1]);
    np.tensordot({a}, {a}, {a}.ndim); np.dot({a}, 2.0); np.dot(2.0, {a}); {a}.dot({a}.T);
    np.vdot({a}, {b}); np.inner({a}, {b}); np.kron({a}, {b}); np.cross({a}, {a}[::-1]);
    np.linalg.matrix_power({a} @ {a}.T * 0.1, 2); np.einsum('ij,kl->jl', {a}, {a}, optimize=True);
    np.sum({a}, where={b} > 0); np.sum({a}, axis={axis}, where={a} > {c}); np.max({a}, initial={c});
    np.max({a}, axis={axis}, initial=0.0); {a}.max(initial={c});
    np.mean({a}, where={a} > {c}) + {a}; np.prod({a}, initial=2.0);
    np.min({a}, axis={axis}, initial=3, where={a} > 0); np.std({a}, ddof=1);
    np.var({a}, {axis}, ddof=1); {a}.sum(axis={axis}, out=None); np.sum({a}, out=np.zeros(()));
    np.mean({a}, axis={axis}, dtype=float);
    np.divide({a}, {b}, out=np.zeros_like({a}), where={b} > 0);
    np.exp({a}, out=np.zeros_like({a}), where={a} < {c});
    np.log(abs({a}), where={a} != 0, out=np.zeros_like({a})); np.add({a}, {b}, where=True);
    np.multiply({a}, {b}, dtype=np.float64); np.maximum.accumulate({a});
    np.add.accumulate({a}, {axis}); np.subtract.outer({a}, {a}); np.multiply.outer({a}, {b});
    np.add.reduceat({a}, [0, 1]); np.maximum.reduce({a}, axis=None); np.logaddexp.reduce({a});
    np.minimum.reduce({a}, {axis}); np.modf({a})[0]; np.frexp({a})[0]; divmod({a}, 0.7)[1];
    np.divmod({a}, 0.7)[0] + {a}; np.apply_along_axis(np.sum, {axis}, {a});
    np.vectorize(lambda v: v * v)({a}); np.piecewise({a}, [{a} > {c}], [lambda v: v ** 2, 0.0]);
    np.select([{a} > {c}, {a} > 0], [{a}, {b}], 0.1);
    np.choose(({a} > {c}).astype(int), [{a}, {b}]);
    np.take_along_axis({a}, np.argsort({a}, {axis}), {axis}); {a}[np.argsort({a})];
    {a}[np.argmax({a})]; {a}[{a} > {c}]; {a}[{a} > {c}].sum() + {a}; {a}[np.abs({a}) > 0.1];
    np.percentile({a}, 30); np.quantile({a}, 0.5, axis={axis});
    np.bincount([0, 1, 0], weights={a}[:3]); np.cov({a}); np.corrcoef({a});
    np.polyval([1, -2, 1], {a}); np.trapezoid({a}); np.correlate({a}, {a}); np.block([{a}, {a}]);
    np.dstack([{a}, {a}]); np.nanmax({a}); np.nanmean({a}, {axis}); np.isclose({a}, {c}) * {a};
    np.extract({a} > {c}, {a}); np.compress([True, False], {a}, axis={axis});
    np.argmax({a}, {axis}) * 1.0 + {a}.sum(); np.argmin({a}) + {a};
    np.where({a} > {c})[0].sum() + {a}; np.nonzero({a} > {c})[0].size * {a};
    np.digitize({a}, [0.0, {c}]) * {a}; np.histogram({a}, 3)[0].sum() + {a}; np.cumulative_sum({a});
    np.ediff1d({a}); np.fill_diagonal({a}, 0) or {a}; np.meshgrid({a}, {b})[0];
    np.lexsort(({a},)) * 1.0 + {a}; np.sinc({a}); np.i0({a} * 0.1); np.unwrap({a});
    np.nan_to_num({a}, copy=False); np.round({a}, decimals=2, out=None); np.fix({a}) + {a};
    np.clip({a}, None, {c}); np.clip({a}, a_min={c}, a_max=None); {a}.clip(min={c});
    np.clip({a}, {b}, {b} + 1); {a}.round(2) + {a}; {a}.argsort({axis}) * 0.1 + {a};
    np.linalg.eigvalsh({a} @ {a}.T); np.linalg.cholesky({a} @ {a}.T + np.eye(len({a})));
    np.linalg.svd({a}, compute_uv=False); np.linalg.norm({a}, 1); np.linalg.norm({a}, np.inf);
    np.linalg.norm({a}, 'nuc'); np.linalg.norm({a}, axis={axis}, ord=1); np.linalg.pinv({a});
    np.linalg.slogdet({a} @ {a}.T + np.eye(len({a})))[1] + {a}.sum(); np.linalg.qr({a})[1];
    np.linalg.vecdot({a}, {a}); np.linalg.trace({a}); sum({a}); max({a}.max(), 0.0) + {a};
    min({a}.ravel()) + {a}; abs({a}.sum()); round({a}.sum(), 3) + {a}; pow({a}, 2);
    sorted({a})[0] + {a}.sum(); sum(map(float, {a}.ravel())) * {a};
    {a}.sum() if isinstance({a}, np.ndarray) else 0 * {a}.sum();
    ({a} if np.isscalar({a}) else 2 * {a}); ({a} if type({a}) is np.ndarray else -1 * {a});
    {a} * len({a}.tolist()); {a} * {a}.flags.c_contiguous; {a} * len({a}.strides);
    {a} * {a}.nbytes * 0.01; {a} * {a}.itemsize; {a} * np.iscomplexobj({a}) + {a};
    {a} * bool(np.isfinite({a}).all()); {a} * (str({a}.dtype) == 'float64');
    np.float64({a}.max()) * {a}; {a} * float(len({a})); {a}.tolist()[0] * {a};
    np.array({a}.tolist()) * {a}; [v for v in {a}][0] * {a}; (lambda u, v: u * v)({a}, {b});
    {a}.__mul__({b}); {a}.__array__() + {a}; np.asanyarray({a}) + 1; np.require({a}, float) * 2;
    np.ma.masked_less({a}, {c}).filled(0.0); np.array({a}, dtype=float, copy=True);
    np.array({a}, ndmin=2); np.asfortranarray({a}) * 2; np.ascontiguousarray({a}) + 1;
    np.frombuffer({a}.tobytes()) * 1.0; copy.deepcopy({a});
    functools.reduce(np.add, [{a}, {b}, {a}]); operator.mul({a}, {b});
    math.exp({a}.sum() * 0.1) * {a}; math.fsum({a}.ravel()) * {a}; {a} * math.sqrt(abs({a}.sum()));
    math.hypot({a}.sum(), 1.0) + {a}.sum(); np.vstack([{a}, {a} * 2])[0]; np.atleast_3d({a});
    np.expand_dims({a}, (0, 1)); {a}[..., None, :]; {a}[np.newaxis, ...];
    {a}[[True] + [False] * (len({a}) - 1)]; {a}[np.ix_([0, 0], [0])]; {a}[-1:]; {a}[::-1][1:];
    {a}[tuple(np.indices({a}.shape))]; {a}[()]; {a}[..., [0, -1]]; np.flip({a}); {a}.diagonal();
    np.triu_indices(2)[0].sum() * {a}; {a}.reshape({a}.shape, order='F'); {a}.ravel('A') * 1.0;
    {a}.reshape(-1, order='F'); np.rollaxis({a}, 0); np.moveaxis({a}, -1, 0); {a}.real * 2;
    {a}.conj() + 1; {a}.byteswap().byteswap(); {a}.view(np.int64).view(np.float64);
    {a}.searchsorted({c}) + {a}; {a}.compress([True]); np.where({a} > {c}, 1, 0) * {a};
    np.where({a} > {c}, {a}, np.inf).min() + {a}; np.full({a}.shape, {a}.sum());
    np.full(3, {a}.max()); np.zeros_like({a}, dtype=float) + {a}; np.empty_like({a}).size * {a};
    np.tri(len({a})) @ {a}; np.einsum('...->...', {a}); np.logspace(0, 1, 3) * {a}.sum();
    np.copysign({a}, {b}); np.spacing({a}) + {a}; np.nextafter({a}, 1) * 2; np.signbit({a}) * {a};
    np.ldexp({a}, 2); np.isnan({a}) + {a}; np.deg2rad({a}); np.gcd(2, 4) * {a}; np.positive({a});
    np.remainder({a}, {b} ** 2 + 1); np.float_power(abs({a}) + 1, {b}); np.heaviside({a}, {b})
""")
"""What is rarely used, or rarely recorded."""


def elementwise(writer, *, forms=SMOOTH):
    """Write an elementwise function of a variable."""
    a = writer.pick()
    fill(writer, writer.choose(forms), a=a, c=writer.near(a), n=writer.number())


def kinked(writer):
    """Write a function with a kink near the variable."""
    elementwise(writer, forms=KINKED)


def jumping(writer):
    """Write a function with a jump near the variable."""
    elementwise(writer, forms=JUMPING)


def polar(writer):
    """Write a function with a pole, or an infinite slope, near the variable."""
    elementwise(writer, forms=POLAR)


def steep(writer):
    """Write a function that changes within a step."""
    elementwise(writer, forms=STEEP)


def binary(writer):
    """Write an elementwise function of two variables."""
    a = writer.pick()
    fill(writer, writer.choose(BINARY), a=a, b=writer.partner(a), c=writer.near(a))


def reducing(writer):
    """Write a reduction along one axis, several, or all."""
    a = writer.pick(lambda v: np.ndim(v) > 0)
    ndim = np.ndim(writer.local[a])
    axes = [writer.integer(ndim), -1, None, *([(0, ndim - 1)] if ndim > 1 else [])]
    axis = str(-1 if writer.by_rows else writer.choose(axes))
    expression = writer.choose(REDUCING)
    if writer.chance(0.2):
        expression = expression.replace("{axis})", "{axis}, keepdims=True)")
    elif writer.chance(0.3):
        expression = expression.replace("{axis}", "axis={axis}")
    fill(writer, expression, a=a, axis=axis, c=writer.near(a), n=writer.number())


def keeping(writer):
    """Write a function along an axis that keeps it."""
    a = writer.pick(lambda v: np.ndim(v) > 0)
    axis = writer.choose([-1 if writer.by_rows else writer.integer(np.ndim(writer.local[a])), -1])
    fill(writer, writer.choose(KEEPING), a=a, axis=axis)


def moving(writer):
    """Write an expression that moves or copies elements."""
    a = writer.pick(lambda v: np.ndim(v) > 0)
    fill(writer, writer.choose(MOVING), a=a, b=writer.partner(a))


def unusual(writer):
    """Write what is rarely recorded."""
    a = writer.pick()
    axis = writer.integer(max(1, np.ndim(writer.local[a])))
    parts = {"b": writer.partner(a), "c": writer.near(a), "axis": axis}
    fill(writer, writer.choose(UNUSUAL), a=a, **parts)


def multiplying(writer):
    """Write a product of a variable with data, with another variable, or with itself."""
    a = writer.pick(lambda v: 0 < np.ndim(v) <= 3)
    shape = writer.local[a].shape
    columns = writer.integer(4) + 1
    left, right = (columns, shape[-2] if len(shape) > 1 else shape[0]), (shape[-1], columns)
    forms = ["{l} @ {a}", "{a} @ {r}", "np.dot({l}, {a})", "np.dot({a}, {r})", "{a}.dot({r})"]
    forms += ["{l}.dot({a})", "np.matmul({a}, {r})", "np.inner({a}, {r}.T)"]
    forms += ["np.tensordot({a}, {r}, axes=1)", "np.tensordot({a}, {r}, ([-1], [0]))"]
    forms += ["np.einsum('...i,ij->...j', {a}, {r})", "np.einsum('...i,...i', {a}, {a})"]
    if len(shape) == 1:
        forms += ["{a} @ {a}", "np.outer({a}, {a})", "np.vdot({a}, {a})", "np.inner({a}, {a})"]
        forms += [
            "np.einsum('i,j->ij', {a}, {a})",
            "np.einsum('i,i', {a}, {a})",
            "{l} @ {a} + {a}[0]",
        ]
    if len(shape) == 2:
        forms += [
            "{a} @ {a}.T",
            "{a}.T @ {a}",
            "np.einsum('ij,jk->ik', {a}, {r})",
            "{a}.T.dot({a})",
        ]
        forms += ["np.einsum('ij,ij->i', {a}, {a})", "np.einsum('ij,kj->ik', {a}, {a})"]
        forms += [
            "np.einsum('ki,ij->jk', {l}, {a})",
            "np.einsum('ij->ji', {a})",
            "np.kron({a}, [[1, 2]])",
        ]
        forms += [
            "np.einsum('ij->i', {a})",
            "np.einsum('ii', {a})",
            "(({a} @ {r})[:, None] * {a}[..., None]).sum(-1)",
        ]
        forms += ["{l} @ {a} @ {r}", "np.linalg.multi_dot([{l}, {a}, {r}])", "{a}[None] @ {r}"]
    if len(shape) == 3:
        forms += ["np.einsum('bij,bkj->bik', {a}, {a})", "np.einsum('bij->ji', {a})"]
    expression = writer.choose(forms)
    made = {
        "l": "{l}" in expression and writer.data(left),
        "r": "{r}" in expression and writer.data(right),
    }
    fill(writer, expression, a=a, **made)


def multiplying_columns(writer):
    """Write a product of a variable's rows with data."""
    a = writer.pick(lambda v: np.ndim(v) == 2)
    shape = (writer.local[a].shape[1], writer.integer(5) + 1)
    forms = ["{a} @ {r}", "np.dot({a}, {r})", "np.einsum('ij,jk->ik', {a}, {r})", "{a}.dot({r})"]
    fill(writer, writer.choose(forms), a=a, r=writer.data(shape))


def repeating(writer):
    """Write the expression of an earlier statement again."""
    earlier = [line for line in writer.program.body if re.match(r"v\d+ = ", line)]
    if not earlier:
        raise Unsuited
    writer.assign(writer.choose(earlier).partition(" = ")[2])


def fill(writer, expression, **parts):
    """Assign an expression whose parts are filled in to a new variable."""
    writer.assign(expression.format(**parts))


EXPRESSIONS = {
    elementwise: 5,
    kinked: 3,
    jumping: 1,
    polar: 0.5,
    steep: 0.4,
    binary: 6,
    reducing: 2.5,
    keeping: 2.5,
    moving: 3,
    multiplying: 4,
    repeating: 0.7,
    unusual: 0.8,
}
"""What writes an expression, with how often it is wanted."""

BY_ROWS = {
    elementwise: 5,
    kinked: 5,
    jumping: 1,
    polar: 0.5,
    steep: 0.5,
    binary: 5,
    reducing: 1,
    keeping: 2,
    multiplying_columns: 3,
    repeating: 0.5,
}
"""The same for what does not mix rows."""
