"""The features stage: one signal record and one feature vector for every market record."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from procs import topology
from procs.fold.assembly import (
    Bound,
    LoopSettings,
    StateSpec,
    World,
    assemble,
    emit,
    in_recs,
    in_row,
    own,
    own_words,
    pass_end,
    scratch,
)
from procs.fold.block import BEFORE, ENDED, OWN, in_loc, out_loc
from procs.fold.checkpoint import save
from procs.fold.far_calls import apart
from procs.fold.merge import flush_outputs
from procs.fold.plan import Plan
from procs.fold.warm import warm_stage
from procs.learning import install
from procs.memory import board
from procs.memory import model_channel as channel
from procs.research import signal_files
from ringbuf.intrinsics import load_acquire, store_release, words_at
from ringbuf.jit import Words, kernel
from ringbuf.ring import I_HEAD, O_KNOWN, O_TAIL
from trading.features import vector as feature_vector
from trading.features.model_layout import MODEL_IMAGE
from trading.instruments import INSTRUMENT
from trading.models import vote as model_vote
from trading.own_signals.guard import GUARD_WORDS
from trading.records import MARKET_RECORD, SIGNAL_RECORD, VECTOR_RECORD, words
from trading.scoring import one_pass as features
from trading.scoring.one_pass import FEATURE_GLOBAL, FEATURE_PARAMS, FEATURE_STATE

NAME: Final = "features"
assert [ring.name for ring in topology.outputs(NAME)] == ["signals", "vectors"]
MARKET: Final = 0
SIGNALS, VECTORS = 0, 1  # outputs
CAUSE: Final = topology.RING["market"].ring_id
# the stage's own arrays
STATE, GLOB, PARAMS, INSTRUMENTS, SCRATCH, MODELS, LOADED, OWN_IMAGES, ROW = 0, 1, 2, 3, 4, 5, 6, 7, 8
WIDTH, ROW_WIDTH = words(SIGNAL_RECORD), words(VECTOR_RECORD)
WANTED, IN_FORCE, IMAGES, IMAGE_WORDS = channel.WANTED, channel.IN_FORCE, channel.IMAGES, channel.IMAGE_WORDS
SINCE: Final = channel.SINCE
CHANNEL_SYMBOLS: Final = channel.SYMBOLS


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between records."""
    return (("state", FEATURE_STATE, symbols), ("glob", FEATURE_GLOBAL, 1))


def plan_spec(plan: Plan) -> StateSpec:
    """The same with the fields of the user's signals; their names hold the hash of the user's code."""
    return (*state_spec(plan.symbols), *signal_files.load(plan.strategy).spec(plan.symbols))


def build(plan: Plan, world: World, loop: LoopSettings) -> Bound:
    """Bind the stage to its rings, with its state at the start."""
    bound = assemble(NAME, world, plan_spec(plan), loop)
    state, glob = bound.state["state"], bound.state["glob"]
    params = features.make_params(plan.strategy, plan.instruments)
    features.init(state, glob, params, plan.instruments)
    user = signal_files.load(plan.strategy)
    if user.settings:
        rows, status = (bound.state[name] for name, _, _ in user.spec(plan.symbols))
        guard = board.page(world.board, topology.stage_id(NAME))[board.USER_GUARD : board.USER_GUARD + GUARD_WORDS]
        bound.keep.append(user.bind(params, rows, status, guard))
    images = model_vote.make_images(params, plan.symbols)
    install.start(plan.strategy, plan.names)(state, images)
    models = world.models if world.models is not None else np.zeros(channel.IMAGES, np.int64)
    loaded = np.zeros(1, np.int64)
    bound.give(
        state, glob, params, plan.instruments, scratch(SIGNAL_RECORD, 1), models, loaded, images, scratch(VECTOR_RECORD, 1)
    )
    return bound


@apart(MARKET)
def _on_market(b: Words, now: int) -> None:
    recs, row = in_recs(b, MARKET, MARKET_RECORD), in_row(b, MARKET)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    out = own(b, SCRATCH, SIGNAL_RECORD)
    state, glob = own(b, STATE, FEATURE_STATE), own(b, GLOB, FEATURE_GLOBAL)
    n = features.on_market(recs, row, state, glob, own(b, PARAMS, FEATURE_PARAMS), own(b, INSTRUMENTS, INSTRUMENT), out, 0)
    if n > 0:
        emit(b, SIGNALS, own_words(b, SCRATCH, WIDTH), 0, CAUSE, head, origin, now)
        # after the signals: risk waits for those
        feature_vector.on_market(recs, row, state, own(b, PARAMS, FEATURE_PARAMS), own(b, ROW, VECTOR_RECORD), 0)
        emit(b, VECTORS, own_words(b, ROW, ROW_WIDTH), 0, CAUSE, head, origin, now)


@apart(ENDED)
def _on_end(b: Words, r: int) -> None:
    pass_end(b, SIGNALS, r)
    pass_end(b, VECTORS, r)


@kernel
def _load(b: Words, number: int) -> None:
    """Compute with the set of this number from now on."""
    to = own_words(b, OWN_IMAGES, IMAGE_WORDS)
    models = words_at(b[OWN + 2 * MODELS], b[OWN + 2 * MODELS + 1])
    start = IMAGES + (number & 1) * models[CHANNEL_SYMBOLS] * IMAGE_WORDS
    for symbol in range(to.shape[0]):
        for k in range(IMAGE_WORDS):
            to[symbol, k] = models[start + symbol * IMAGE_WORDS + k]
    words_at(b[OWN + 2 * LOADED], 1)[0] = number


@kernel
def _fit(b: Words) -> None:
    """What was fitted becomes part of the symbols' state."""
    state, images = own(b, STATE, FEATURE_STATE), own(b, OWN_IMAGES, MODEL_IMAGE)
    for symbol in range(len(state)):
        s, image = state[symbol], images[symbol]
        if image.garch_omega > 0.0:
            s.garch_omega, s.garch_alpha, s.garch_beta = image.garch_omega, image.garch_alpha, image.garch_beta
        if image.micro_fitted != 0:
            s.micro_fitted = 1
            for k in range(image.micro_table.size):
                s.micro_table[k] = image.micro_table[k]


@apart(BEFORE)
def _take_model(b: Words, _: int) -> None:
    """Between two batches: compute on with the models that the state says, and make newly published ones those."""
    models = words_at(b[OWN + 2 * MODELS], b[OWN + 2 * MODELS + 1])
    loaded = words_at(b[OWN + 2 * LOADED], 1)
    wanted, g = load_acquire(models, WANTED), own(b, GLOB, FEATURE_GLOBAL)[0]
    number = g.model
    signals, vectors = out_loc(b, SIGNALS), out_loc(b, VECTORS)
    if wanted != number and signals[O_TAIL] >= signals[O_KNOWN] and vectors[O_TAIL] >= vectors[O_KNOWN]:
        flush_outputs(b)
        g.model = number = wanted
        _load(b, number)
        _fit(b)
        models[SINCE + (number & 1)] = in_loc(b, MARKET)[I_HEAD]
        save(b)  # from here on all is computed with it; what came before, never again (procs.memory.model_channel)
    if loaded[0] != number:
        _load(b, number)
    if models[IN_FORCE] != number:
        store_release(models, IN_FORCE, number)


warm: Final = partial(warm_stage, NAME)
"""Compile or load this stage's kernels (the zygote calls it once)."""
