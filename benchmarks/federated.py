"""Federations whose plants differ: fedsparse's default beside what else one might do, from unlike to alike plants.

Every arm has the same plants, rounds and local training (loss, passes, falling rates, head). Each chooses among
learning rates by itself, on another draw, without the samples that are tested on in the end; but holders' mean
and shared mask take that of the default without momentum. FLASC's server adds the mean, as the others do;
momentum, over texts, is the default's alone. Accuracy is the mean over the last rounds, because it jumps from
round to round where plants differ. Finished jobs are kept in --archive: an interrupted run goes on where it
stopped, one after a change of the code begins anew. Where a change was shown to leave results as they are, to
the bit and on one machine, they were carried over: the archive says of each from which commit. Another
processor rounds otherwise, and a history then differs in its third digit. --seeds 1 gives a first picture.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import fedsparse
from benchmarks.federated_others import average
from benchmarks.federated_report import report
from benchmarks.kept import code_digest, run_all
from benchmarks.report import RESULTS
from benchmarks.simulation import ORDERS, Bench, Name, images, texts
from benchmarks.small_minilm import small_minilm
from fedsparse import config
from fedsparse.aggregation import Policy
from fedsparse.delta import Operation, SparseDelta, apply
from fedsparse.errors import DeltaError
from fedsparse.simulation import federate
from fedsparse.training import Evaluator, LocalTrainer

ROUNDS, LAST, RANK = 20, 3, 16
PLANTS, ALPHAS = (4, 16), (0.1, 0.5, 100.0)
IMAGE_SIZE, IMAGE_SHARE = 64, 0.3
TUNING_PLANTS, TUNING_ALPHAS, TUNING_ROUNDS, TUNING_SEED = 4, (0.1, 0.5), 10, 100
TASKS = {"images": "image-classification", "texts": "text-classification"}
LEAST = {"images": 4, "texts": 2}
ARCHIVE = RESULTS / "federated.jobs.jsonl"

Method = Literal["merged", "voted", "averaged", "flasc", "alone", "central"]
Family = Literal["sparse", "lora", "dense"]


@dataclass(frozen=True)
class Arm:
    """One way to go about it.

    Attributes:
        rule: changes to ``[aggregation]``.
        plain: the server takes what is merged, also where it has momentum by default.
        rate_of: the arm whose learning rate it takes, its own by default.
    """

    name: str
    method: Method
    family: Family
    rule: tuple[tuple[str, Any], ...] = ()
    plain: bool = True
    rate_of: str = ""

    @property
    def tuned(self) -> str:
        """The name of the arm whose learning rate it takes."""
        return self.rate_of or self.name


DEFAULT = Arm("fedsparse (default)", "merged", "sparse", plain=False)
PLAIN = Arm("the same without momentum", "merged", "sparse")
ARMS = (
    DEFAULT,
    PLAIN,
    Arm("holders' mean", "merged", "sparse", (("rule", "holders-mean"),), rate_of=PLAIN.name),
    Arm("zero-fill", "merged", "sparse", (("rule", "zero-fill"),)),
    Arm("shared mask", "voted", "sparse", (("rule", "holders-mean"),), rate_of=PLAIN.name),
    Arm("FLASC", "flasc", "lora"),
    Arm("FedAvg, LoRA", "averaged", "lora"),
    Arm("FedAvg, all adapted weights", "averaged", "dense"),
    Arm("best plant alone", "alone", "sparse"),
    Arm("centralised, sparse", "central", "sparse"),
)
RATES: dict[Family, dict[Name, tuple[float, ...]]] = {
    "sparse": {"images": (3e-3, 1e-2, 3e-2, 1e-1), "texts": (1e-3, 3e-3, 1e-2, 3e-2)},
    "lora": {"images": (1e-3, 3e-3, 1e-2, 3e-2), "texts": (1e-3, 3e-3, 1e-2, 3e-2)},
    "dense": {"images": (1e-4, 3e-4, 1e-3, 3e-3), "texts": (3e-4, 1e-3, 3e-3, 1e-2)},
}
_WHOLE = {"images": ("*",), "texts": ("head.*", "*.dense.weight", "*.self.*.weight")}  # embeddings stay frozen
_LIBRARY, _HERE = Path(fedsparse.__file__).parent, Path(__file__).parent
_CODE = code_digest(
    *(_LIBRARY / room for room in ("adapters", "aggregation", "delta", "simulation", "sparsity", "training")),
    *(_HERE / f"{name}.py" for name in ("federated_others", "simulation", "small_minilm")),
)


@dataclass(frozen=True)
class Job:
    """All that decides one run's result; a run for tuning never sees the test samples."""

    problem: Name
    data: str
    method: Method
    adapter: dict[str, Any]
    training: dict[str, Any]
    aggregation: dict[str, Any]
    server: dict[str, Any]
    plants: int
    alpha: float
    seed: int
    rounds: int
    tuning: bool
    image_size: int = IMAGE_SIZE
    image_share: float = IMAGE_SHARE
    rank: int = RANK
    code: str = _CODE
    version: int = 2  # of what this file does


@cache
def _bench(problem: Name, work: Path, orders: Path, kind: str, whole: bool = False) -> Bench:
    spec = config.AdapterSettings(
        kind=kind,  # type: ignore[arg-type] # validated by pydantic
        rank=RANK,
        alpha=2.0 * RANK,
        dense=_WHOLE[problem] if whole else ("head.*",),
        image_size=IMAGE_SIZE if problem == "images" else None,
    )
    if problem == "images":
        return images(work / "features", spec).share(IMAGE_SHARE)
    return texts(orders, spec, small_minilm(work))


def run_job(work: Path, orders: Path, job: Job) -> dict[str, Any]:
    """Run one job."""
    bench = _bench(job.problem, work, orders, job.adapter["kind"], job.adapter.get("whole", False))
    bench = bench.tuning() if job.tuning else bench
    parts = bench.many_plants(job.plants, job.alpha, job.seed, LEAST[job.problem])
    started = time.monotonic()
    try:
        found = _run(job, bench, [bench.trainer(part) for part in parts])
    except DeltaError as error:  # a rate so high that training diverges has lost, and is no reason to stop
        found = {"history": [1 / len(bench.samples.classes)] * job.rounds, "failed": str(error)}
    found["history"] = [round(one, 4) for one in found["history"]]
    return {**found, "sizes": [len(part) for part in parts], "seconds": round(time.monotonic() - started, 1)}


def _run(job: Job, bench: Bench, trainers: list[LocalTrainer]) -> dict[str, Any]:
    evaluator = bench.evaluator()
    schedule = config.TrainingDefaults(**job.training, seed=job.seed).schedule(job.rounds)
    if job.method == "alone":
        histories = [_alone(trainer.alone(), evaluator, schedule) for trainer in trainers]
        best = max(histories, key=lambda history: statistics.mean(history[-LAST:]))
        return {"history": best, "alone": [statistics.mean(history[-LAST:]) for history in histories]}
    if job.method == "central":
        return {"history": _alone(bench.trainer(bench.rest), evaluator, schedule)}
    if job.method in ("averaged", "flasc"):
        share = 0.25 if job.method == "flasc" else 1.0
        rounds: Iterable[Any] = average(trainers, evaluator, schedule, share)
    else:
        policy = Policy.of(config.AggregationSettings(**job.aggregation))
        server = config.ServerSettings(**job.server)
        rounds = federate(trainers, evaluator, policy, server, schedule)
    done = list(rounds)
    return {
        "history": [one.balanced_accuracy for one in done],
        "bytes_up": statistics.mean(one.bytes_up for one in done),
        "bytes_down": statistics.mean(one.bytes_down for one in done),
    }


def _alone(trainer: LocalTrainer, evaluator: Evaluator, schedule: Sequence[Any]) -> list[float]:
    """Return the accuracy after the last rounds, 0 before: nobody looks at it."""
    state, history = SparseDelta.empty(trainer.space.fingerprint, Operation.SET), []
    for number, settings in enumerate(schedule, 1):
        state = apply(state, trainer.train(state, settings, number).delta)
        late = number > len(schedule) - LAST
        history.append(evaluator.evaluate(state).balanced_accuracy if late else 0.0)
    return history


def training(problem: Name, family: Family, rate: float) -> dict[str, Any]:
    """Return how a family trains: as by default but for the rate, dense where it is, texts with one pass."""
    kind = "lora" if family == "lora" else "delta"
    found = config.training_defaults(kind, TASKS[problem]).model_dump(exclude={"seed", "mask", "revote"})
    found |= {"learning_rate": rate, "epochs": 1}
    if family != "sparse":
        dense = {"density": 1.0, "value_coding": "fp32", "structure": "unstructured", "allocation": "global"}
        found |= dense
    if family == "dense":
        found["head_learning_rate"] = rate  # of all that is trained whole
    return found


def job_of(arm: Arm, problem: Name, data: str, rate: float, **where: Any) -> Job:
    """Return the job of an arm; what does not matter to it is left out, so that it is done once."""
    merges = arm.method in ("merged", "voted")
    rule = config.AggregationSettings(**dict(arm.rule)).model_dump() if merges else {}
    steps = config.ServerSettings() if arm.plain else config.server_defaults("delta", TASKS[problem])
    server = steps.model_dump() if merges else {}
    if arm.method == "central":
        where |= {"plants": PLANTS[0], "alpha": ALPHAS[-1]}  # all the samples, whoever has them
    adapter: dict[str, Any] = {"kind": "lora" if arm.family == "lora" else "delta"}
    if arm.family == "dense":
        adapter["whole"] = True
    trained = training(problem, arm.family, rate)
    if arm.method == "voted":
        trained |= {"mask": "consensus", "revote": 100}
    return Job(problem, data, arm.method, adapter, trained, rule, server, **where)


def _line(found: dict[str, Any]) -> str:
    rule, rate = found["aggregation"].get("rule", ""), found["training"]["learning_rate"]
    return (
        f"{found['problem']} {found['plants']:>2} plants α {found['alpha']:<5g} seed {found['seed']} "
        f"{found['adapter']['kind']:<5} {found['method']:<8} {rule:<12} rate {rate:g}: "
        f"{statistics.mean(found['history'][-LAST:]):.3f} in {found['seconds']:.0f} s"
    )


def _key(job: Job | dict[str, Any]) -> str:
    given = job if isinstance(job, dict) else vars(job)
    return json.dumps([given[name] for name in Job.__dataclass_fields__], sort_keys=True)


def main() -> None:
    """Choose the rates, run every arm, print the tables, write results/federated.json and .svg."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--text-seeds", type=int, help="for the texts, if not as many; they take the longest")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--texts", type=Path, default=ORDERS, help="folder of the maintenance work orders")
    parser.add_argument("--work", type=Path, default=Path("runs/federated"), help="for activations and models")
    parser.add_argument("--archive", type=Path, default=ARCHIVE, help="file that finished jobs are kept in")
    options = parser.parse_args()
    seeds = dict.fromkeys(options.problems, options.seeds) | {"texts": options.text_seeds or options.seeds}
    started = time.monotonic()
    run = partial(run_job, options.work, options.texts)
    go = partial(run_all, run=run, folder=options.work, workers=options.workers, describe=_line,
                 archive=options.archive)  # fmt: skip
    data = {name: _bench(name, options.work, options.texts, "delta").digest() for name in options.problems}
    rates = _tune(data, go)
    wanted = {
        (name, arm.name, plants, alpha, seed): job_of(
            arm, name, data[name], rates[name, arm.tuned],
            plants=plants, alpha=alpha, seed=seed, rounds=ROUNDS, tuning=False,
        )
        for seed in range(options.seeds)
        for name in options.problems
        if seed < seeds[name]
        for plants in PLANTS
        for alpha in ALPHAS
        for arm in ARMS
    }  # fmt: skip
    unique = {_key(job): job for job in wanted.values()}
    found = {_key(one): one for one in go(list(unique.values()))}
    results = [
        {"arm": arm, "problem": name, "plants": plants, "alpha": alpha, "seed": seed, "found": found[_key(job)]}
        for (name, arm, plants, alpha, seed), job in wanted.items()
    ]
    settings = {
        "rounds": ROUNDS,
        "last_rounds_averaged": LAST,
        "seeds": {name: list(range(seeds[name])) for name in options.problems},
        "plants": PLANTS,
        "alphas": ALPHAS,
        "image_size": IMAGE_SIZE,
        "share_of_the_training_images": IMAGE_SHARE,
        "text_model": "the lower 3 of MiniLM's 6 layers",
        "lora_rank": RANK,
        "rates_to_choose_from": RATES,
        "rates": [[*key, rate] for key, rate in rates.items()],
        "default": config.AggregationSettings().model_dump(),
        "server": {name: config.server_defaults("delta", task).model_dump() for name, task in TASKS.items()},
        "jobs_carried_over_by_commit": dict(
            Counter(one["from_commit"] for one in found.values() if "from_commit" in one)
        ),
        "wall_seconds": round(time.monotonic() - started, 1),
    }
    report(results, [arm.name for arm in ARMS], LAST, settings, variants={PLAIN.name})


def _tune(data: dict[Name, str], go: Any) -> dict[tuple[Name, str], float]:
    """Return by problem and arm the rate with the best accuracy, on unlike and on very unlike plants alike."""
    where = {"plants": TUNING_PLANTS, "seed": TUNING_SEED, "rounds": TUNING_ROUNDS, "tuning": True}
    jobs = {
        (name, arm.name, rate, alpha): job_of(arm, name, data[name], rate, alpha=alpha, **where)
        for name in data
        for arm in ARMS
        if arm.tuned == arm.name
        for rate in RATES[arm.family][name]
        for alpha in TUNING_ALPHAS
    }
    unique = {_key(job): job for job in jobs.values()}
    found = {_key(one): statistics.mean(one["history"][-LAST:]) for one in go(list(unique.values()))}
    best: dict[tuple[Name, str], tuple[float, float]] = {}
    for name, arm, rate, _ in jobs:
        score = statistics.mean(found[_key(jobs[name, arm, rate, alpha])] for alpha in TUNING_ALPHAS)
        best[name, arm] = max(best.get((name, arm), (0.0, 0.0)), (score, rate))
    return {key: rate for key, (_, rate) in best.items()}


if __name__ == "__main__":
    main()
