"""Which operations may a graph that came from elsewhere name?

Those of this list and no others: the ones that traced models consist of, whose sizes follow from sizes (never from values), whose
kernels check every value that they use as an index, and on which ``benchmarks/fuzz_graph.py`` found nothing. Nothing here imports,
calls or evaluates what a file says: a name is looked up, or refused. Left out on purpose, beside all that nobody needs:

* What reads memory by sizes that it is told: ``as_strided``, ``_reshape_alias``, ``set_``, ``resize_``, ``view.dtype``.
* What makes sizes out of values: ``nonzero``, ``unique``, ``masked_select``, ``bincount``, ``item``.
* What trusts values: ``_embedding_bag`` (its offsets), ``fractional_max_pool`` (its samples); quantised, sparse and nested kernels.
* What hands out memory as it lies there: ``empty`` and its kin. They are read as ``zeros``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

import torch

from prunus.core.errors import BundleError

__all__ = ["allowed_names", "name_of", "operation", "takes_numbers"]

aten = torch.ops.aten

_NAME = re.compile(r"aten\.([A-Za-z_][A-Za-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_]*)")
_PYTHON: dict[str, Callable[..., Any]] = {
    f"operator.{f.__name__}": f
    for f in (
        operator.getitem,
        operator.add,
        operator.mul,
        operator.floordiv,
        operator.mod,
        operator.truediv,
        operator.pow,
    )
}

# Views, and what only looks at a tensor. Those that change a tensor's sizes in place would change the model's own tensors, so these
# have no variant in place.
_VIEWS = """
    alias.default broadcast_to.default chunk.default contiguous.default detach.default diagonal.default expand.default
    expand_as.default flatten.using_ints lift_fresh.default mT.default movedim.int movedim.intlist narrow.default numpy_T.default
    permute.default reshape.default resolve_conj.default select.int slice.Tensor split.Tensor split.sizes
    split_with_sizes.default squeeze.default squeeze.dim squeeze.dims swapaxes.default t.default tensor_split.indices
    tensor_split.sections transpose.int unbind.int unflatten.int unfold.default unsqueeze.default view.default
    view_as_complex.default view_as_real.default _conj.default _unsafe_view.default _assert_tensor_metadata.default
    sym_size.int
"""

# Value by value. Their variants in place (``relu_``) are on the list, too.
_POINTWISE = """
    abs.default acos.default acosh.default add.Scalar add.Tensor addcdiv.default addcmul.default angle.default asin.default
    asinh.default atan.default atan2.default atanh.default bitwise_and.Scalar bitwise_and.Scalar_Tensor bitwise_and.Tensor
    bitwise_left_shift.Tensor bitwise_left_shift.Tensor_Scalar bitwise_not.default bitwise_or.Scalar bitwise_or.Scalar_Tensor
    bitwise_or.Tensor bitwise_right_shift.Tensor bitwise_right_shift.Tensor_Scalar bitwise_xor.Scalar bitwise_xor.Scalar_Tensor
    bitwise_xor.Tensor ceil.default celu.default clamp.Tensor clamp.default clamp_max.Tensor clamp_max.default clamp_min.Tensor
    clamp_min.default clip.Tensor clip.default clone.default complex.default conj_physical.default copy.default copysign.Scalar
    copysign.Tensor cos.default cosh.default deg2rad.default digamma.default div.Scalar div.Scalar_mode div.Tensor
    div.Tensor_mode dropout.default elu.default eq.Scalar eq.Tensor erf.default erfc.default erfinv.default exp.default
    exp2.default expm1.default fake_quantize_per_tensor_affine_cachemask.default fill.Scalar fill.Tensor float_power.Scalar
    float_power.Tensor_Scalar float_power.Tensor_Tensor floor.default floor_divide.Scalar floor_divide.default fmax.default
    fmin.default fmod.Scalar fmod.Tensor frac.default ge.Scalar ge.Tensor gelu.default gt.Scalar gt.Tensor hardshrink.default
    hardsigmoid.default hardswish.default hardtanh.default heaviside.default hypot.default i0.default isfinite.default
    isinf.default isnan.default isneginf.default isposinf.default ldexp.Tensor le.Scalar le.Tensor leaky_relu.default
    lerp.Scalar lerp.Tensor lgamma.default log.default log10.default log1p.default log2.default log_sigmoid_forward.default
    logaddexp.default logaddexp2.default logical_and.default logical_not.default logical_or.default logical_xor.default
    logit.default lt.Scalar lt.Tensor masked_fill.Scalar masked_fill.Tensor max.other maximum.default min.other minimum.default
    mish.default mul.Scalar mul.Tensor nan_to_num.default native_dropout.default ne.Scalar ne.Tensor neg.default polar.default
    positive.default pow.Scalar pow.Tensor_Scalar pow.Tensor_Tensor rad2deg.default reciprocal.default relu.default relu6.default
    remainder.Scalar remainder.Scalar_Tensor remainder.Tensor round.decimals round.default rsqrt.default rsub.Scalar rsub.Tensor
    selu.default sgn.default sigmoid.default sign.default signbit.default silu.default sin.default sinc.default sinh.default
    softplus.default softshrink.default sqrt.default square.default sub.Scalar sub.Tensor tan.default tanh.default
    threshold.default to.device to.dtype to.dtype_layout to.other true_divide.Scalar true_divide.Tensor trunc.default
    type_as.default where.Scalar where.ScalarOther where.ScalarSelf where.self xlogy.Scalar_Other xlogy.Scalar_Self xlogy.Tensor
    _prelu_kernel.default _to_copy.default lift_fresh_copy.default
"""

# New tensors, other orders, and sums.
_TENSORS = """
    all.default all.dim all.dims amax.default amin.default aminmax.default any.default any.dim any.dims arange.default arange.start
    arange.start_step argmax.default argmin.default argsort.default argsort.stable bernoulli.Tensor bernoulli.default bernoulli.p
bucketize.Scalar bucketize.Tensor cat.default channel_shuffle.default concat.default concatenate.default
    constant_pad_nd.default count_nonzero.default count_nonzero.dim_IntList cummax.default cummin.default cumprod.default
    cumsum.default diag_embed.default diagonal_copy.default diff.default expand_copy.default eye.default eye.m flip.default
    full.default full_like.default gather.default hann_window.default hann_window.periodic histc.default index.Tensor
    index_add.default index_copy.default index_put.default index_select.default kthvalue.default linspace.default
    logcumsumexp.default logsumexp.default masked_scatter.default max.default max.dim mean.default mean.dim median.default
    median.dim min.default min.dim mode.default msort.default nanmedian.default nanmedian.dim nansum.default
    native_channel_shuffle.default new_full.default new_ones.default new_zeros.default ones.default ones_like.default pad.default
    permute_copy.default pixel_shuffle.default pixel_unshuffle.default prod.default prod.dim_int rand.default rand_like.default
    randn.default randn_like.default randperm.default reflection_pad1d.default reflection_pad2d.default reflection_pad3d.default
    repeat.default repeat_interleave.self_int replication_pad1d.default replication_pad2d.default replication_pad3d.default
    roll.default scalar_tensor.default scatter.reduce scatter.src scatter.value scatter.value_reduce scatter_add.default
    scatter_reduce.two select_copy.int slice_copy.Tensor sort.default sort.stable split_copy.Tensor split_with_sizes_copy.default
    squeeze_copy.default squeeze_copy.dim squeeze_copy.dims stack.default std.correction std.default std.dim std_mean.correction
    std_mean.default std_mean.dim sum.default sum.dim_IntList take_along_dim.default tile.default topk.default tril.default
    tril_indices.default triu.default triu_indices.default unbind_copy.int unsafe_chunk.default unsafe_split.Tensor
    unsafe_split_with_sizes.default unsqueeze_copy.default var.correction var.default var.dim var_mean.correction
    var_mean.default var_mean.dim view_as_real_copy.default view_copy.default zero.default zeros.default zeros_like.default
"""

# Layers: products, convolutions, norms, pools, attention, recurrence, spectra.
_LAYERS = """
    _adaptive_avg_pool2d.default _adaptive_avg_pool3d.default _cdist_forward.default _convolution.default _euclidean_dist.default
    _fft_c2c.default _fft_c2r.default _fft_r2c.default _fused_rms_norm.default _grouped_mm.default _log_softmax.default
    _native_batch_norm_legit.default _native_batch_norm_legit.no_stats _native_batch_norm_legit_no_training.default
    _safe_softmax.default _scaled_dot_product_attention_math.default _scaled_dot_product_flash_attention_for_cpu.default
    _softmax.default _trilinear.default _upsample_bicubic2d_aa.default _upsample_bilinear2d_aa.default
    _upsample_nearest_exact1d.default _upsample_nearest_exact2d.default _upsample_nearest_exact3d.default
    _weight_norm_interface.default adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_avg_pool3d.default
    adaptive_max_pool1d.default adaptive_max_pool2d.default adaptive_max_pool3d.default addbmm.default addmm.default
    addmv.default addr.default avg_pool1d.default avg_pool2d.default avg_pool3d.default baddbmm.default batch_norm.default
    bmm.default col2im.default conv1d.default conv2d.default conv3d.default convolution.default cross.default dot.default
    embedding.default ger.default glu.default grid_sampler.default grid_sampler_2d.default grid_sampler_3d.default
    group_norm.default gru.input im2col.default layer_norm.default linalg_cross.default linalg_vector_norm.default
    linear.default log_softmax.int lstm.input matmul.default max_pool1d.default max_pool1d_with_indices.default
    max_pool2d.default max_pool2d_with_indices.default max_pool3d.default max_pool3d_with_indices.default max_unpool2d.default
    max_unpool3d.default mm.default mv.default native_batch_norm.default native_group_norm.default native_layer_norm.default
    norm.Scalar norm.ScalarOpt_dim norm.ScalarOpt_dim_dtype norm.ScalarOpt_dtype outer.default renorm.default rms_norm.default
    rnn_relu.input rnn_tanh.input scaled_dot_product_attention.default softmax.int upsample_bicubic2d.default
    upsample_bilinear2d.default upsample_linear1d.default upsample_nearest1d.default upsample_nearest2d.default
    upsample_nearest3d.default upsample_trilinear3d.default vdot.default
"""

_IN_PLACE = frozenset(f"{_POINTWISE} {_TENSORS} {_LAYERS}".split())
_LISTED = _IN_PLACE | frozenset(_VIEWS.split())
_FILLED = {
    "empty.memory_format": aten.zeros.default,
    "empty_like.default": aten.zeros_like.default,
    "new_empty.default": aten.new_zeros.default,
}


def allowed_names() -> tuple[str, ...]:
    """Return the names of all operations of ATen on the list that this torch has, those in place included."""
    twins = [name.replace(".", "_.", 1) for name in _IN_PLACE]
    return tuple(sorted(name for name in {*_LISTED, *twins} if _found(*name.split(".")) is not None))


def operation(name: str) -> Callable[..., Any]:
    """Return the operation of that name.

    Raises:
        BundleError: it isn't one that a graph may name.

    >>> operation("aten.relu.default")
    <OpOverload(op='aten.relu', overload='default')>
    """
    if name in _PYTHON:
        return _PYTHON[name]
    parts = _NAME.fullmatch(name)
    found = None
    if parts:
        own = f"{parts[1]}.{parts[2]}"
        found = _FILLED.get(own) or (_found(parts[1], parts[2]) if _is_listed(own) else None)
    if found is None:
        raise BundleError(
            f"{name[:80]!r} is no operation that a graph may name: expected one of the {len(_LISTED)} of "
            f"prunus.ship.graph_files.allowed_operations that torch {torch.__version__} has, or one of {', '.join(_PYTHON)}"
        )
    return found


def takes_numbers(target: Any) -> bool:
    """Tell whether an operation works value by value, so that a plain number can take the place of one of its tensors."""
    packet, overload = str(target).removeprefix("aten.").split(".")
    return f"{packet.removesuffix('_')}.{overload}" in _POINTWISE.split()


def name_of(target: Any) -> str:
    """Return the name by which :func:`operation` finds ``target``.

    Raises:
        BundleError: it doesn't.
    """
    for name, function in _PYTHON.items():
        if target is function:
            return name
    name = str(target)
    operation(name)
    return name


def _is_listed(name: str) -> bool:
    """Tell whether ``relu.default``, or what ``relu_.default`` does out of place, is on the list."""
    packet, overload = name.split(".")
    return name in _LISTED or (packet.endswith("_") and f"{packet[:-1]}.{overload}" in _IN_PLACE)


def _found(packet_name: str, overload: str) -> Any:
    """Return an overload of ATen, or nothing."""
    packet = getattr(aten, packet_name, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket) or overload not in packet.overloads():  # type: ignore[no-untyped-call]
        return None
    return getattr(packet, overload)
