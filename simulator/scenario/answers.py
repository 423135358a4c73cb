"""Answers for names that other tools use: the key or option that fedscape has instead, or what is not possible.

Plain data without an import, so that the command can answer an unknown option quickly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

DEVICE = (
    "Clients train on the CPU unless engine.device names a CUDA card: --set engine.device=cuda (or auto, cuda:1). "
    "[engine] says how else clients train: kind, tile, compile, threads, workers, tf32, bf16."
)
PROCESSES = (
    "One process trains many clients at once as one tensor program. "
    "Processes of a run: --set engine.workers=N; processor threads of each: --set engine.threads=N."
)
COHORT = "Write how many clients train in a round, not a share: --set algorithm.cohort=N."
CLIENTS = "Examples are dealt to --set partition.clients=N. A generated city has --set data.clients=N."
DEADLINE = (
    "A round waits for all of its clients; no client is late. "
    "Clients that do less work in a round: --set local.partial_work=SHARE."
)
FOLDER = "The run's folder is an option of the command: --out FOLDER (out= in Python)."
NAMED_OPTION = "The scenario is the first word after the command: fedscape run my.toml."
CENTRAL = "Central validation is measured every round. On the clients: --set evaluation.federated_every=ROUNDS."
DECAY = (
    "As a penalty in the gradient (torch's weight_decay): --set local.l2=VALUE. "
    "As in AdamW: local.decoupled_weight_decay."
)
OWN_MODEL = "From Python, any torch.nn.Module can be trained: fs.simulate(scenario, model=MyNet())."
HUB = (
    "Data sets of the Hugging Face Hub: data.kind = 'huggingface' with data.path, data.features and data.label, "
    "and data.download = true."
)


def _use(key: str, value: str = "VALUE") -> str:
    return f"Use --set {key}={value}."


def _for_each(names: str, answer: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), answer)


KEYS: Mapping[str, str] = {
    **_for_each(
        "device devices gpu gpus cuda use_gpu use_cuda no_cuda num_gpus accelerator client_gpus n_gpus", DEVICE
    ),
    **_for_each("workers num_workers processes n_jobs num_cpus cpus client_resources parallel cores", PROCESSES),
    **_for_each("num_threads n_threads", _use("engine.threads", "N")),
    **_for_each("backend simulator", _use("engine.kind", "plain (or stacked, auto)")),
    **_for_each(
        "num_rounds n_rounds nrounds num_server_rounds global_rounds global_epochs communication_rounds comm_round "
        "comm_rounds max_rounds total_rounds server_rounds max_iter iterations",
        _use("run.rounds", "N"),
    ),
    **_for_each("random_seed random_state manual_seed rng", _use("run.seed", "N")),
    **_for_each("lr learning_rate client_lr local_learning_rate eta eta_l step_size", _use("local.local_lr")),
    **_for_each("epochs num_epochs n_epochs local_ep local_epoch max_epochs epoch", _use("local.local_epochs", "N")),
    **_for_each("steps num_steps local_iterations local_updates", _use("local.local_steps", "N")),
    **_for_each("batch batchsize bs local_bs minibatch train_batch_size", _use("local.batch_size", "N")),
    **_for_each("weight_decay wd", DECAY),
    **_for_each(
        "lr_decay lr_schedule scheduler lr_scheduler", "Use [local.schedule]: --set local.schedule.kind=cosine."
    ),
    **_for_each("grad_clip gradient_clip max_grad_norm clip", _use("local.clip_norm")),
    **_for_each("deadline timeout round_timeout round_deadline max_wait straggler stragglers", DEADLINE),
    **_for_each("optim opt", _use("local.optimizer", "sgd")),
    **_for_each(
        "num_clients n_clients client_num_in_total num_users n_users num_nodes num_supernodes parties", CLIENTS
    ),
    **_for_each(
        "fraction_fit fraction_train client_fraction frac fraction participation participation_rate join_ratio "
        "sample_fraction sample_rate client_sample_ratio min_fit_clients min_train_nodes min_available_clients "
        "clients_per_round num_clients_per_round client_num_per_round sample_clients cohort_size",
        COHORT,
    ),
    **_for_each(
        "fraction_evaluate fraction_eval min_evaluate_clients min_evaluate_nodes",
        "Use --set evaluation.federated_clients=N.",
    ),
    **_for_each("eval_every evaluate_every eval_interval frequency_of_the_test eval", CENTRAL),
    **_for_each("dataset dataset_name data_name", _use("data.kind", "digits")),
    **_for_each("data_path data_dir dataset_path root", _use("data.path", "PATH")),
    **_for_each("net network arch architecture model_name", _use("model.kind", "mlp")),
    **_for_each("hidden_size hidden_dim hidden_units hidden_layers layers width", _use("model.hidden", "[64,32]")),
    **_for_each("strategy aggregator aggregation method algo fl_algorithm", _use("algorithm.kind", "fedavg")),
    **_for_each("proximal_mu prox_mu fedprox_mu", _use("algorithm.mu")),
    **_for_each("server_learning_rate global_lr eta_s eta_g slr", _use("algorithm.server_lr")),
    **_for_each("server_optimizer", _use("algorithm.kind", "fedadam")),
    **_for_each("iid is_iid", "Use --set partition.kind=iid."),
    **_for_each(
        "non_iid noniid niid heterogeneity split_type partitioner_name",
        "Use --set partition.kind=dirichlet --set partition.concentration=0.3.",
    ),
    **_for_each(
        "alpha beta dirichlet_alpha dir_alpha dirichlet dirichlet_beta",
        "The skew of labels: --set partition.kind=dirichlet --set partition.concentration=0.3. "
        "A small one is more skewed. FedDyn's alpha: --set algorithm.kind=feddyn.",
    ),
    **_for_each("shards num_shards classes_per_client", _use("partition.shards_per_client", "N")),
    **_for_each(
        "early_stopping early_stop stopping",
        "Use [convergence]: --set convergence.plateau.metric=validation_loss --set convergence.plateau.patience=5.",
    ),
    **_for_each(
        "target_accuracy target_acc",
        "Use --set convergence.target.metric=validation_accuracy --set convergence.target.at_least=0.9.",
    ),
    **_for_each("precision amp fp16 bf16 half mixed_precision", "Numbers are float32, or --set run.dtype=float64."),
    **_for_each("output output_dir out_dir outdir save_dir save_path log_dir logdir results run_dir", FOLDER),
    **_for_each("checkpoint_every save_every checkpoint_interval", _use("run.checkpoint_rounds", "N")),
    **_for_each("checkpoint resume_from ckpt", "An interrupted run continues with fedscape resume RUN."),
    **_for_each("tensorboard use_tensorboard tb", "TensorBoard's files are an option of the command: --tensorboard."),
    **_for_each(
        "wandb use_wandb mlflow",
        "Exports are options of the command: --tensorboard, --metrics-port N, --remote-write URL.",
    ),
    **_for_each("config cfg scenario scenario_file yaml", NAMED_OPTION),
    **_for_each("name_of_run run_name experiment_name exp_name", FOLDER),
}
"""What fedscape has instead, by the last part of a key or the name of an option."""

SECTIONS: Mapping[str, str] = {
    **_for_each("dataset datasets source", "data"),
    **_for_each("split partitioning partitioner", "partition"),
    **_for_each("server strategy aggregation aggregator fl federated federation", "algorithm"),
    **_for_each("client clients training train trainer optimizer optim optimiser hyperparameters", "local"),
    **_for_each("simulation experiment general global settings runtime budget", "run"),
    **_for_each("network net architecture", "model"),
    **_for_each("eval test testing validation", "evaluation"),
    **_for_each("stop stopping early_stopping", "convergence"),
    **_for_each("fault noise", "faults"),
    **_for_each("drift", "drifts"),
    **_for_each("backend resources hardware", "engine"),
}
"""The section that other tools' sections correspond to."""

VALUES: Mapping[str, Mapping[str, str]] = {
    "engine.kind": _for_each("gpu cuda mps cuda:0 tpu ray", DEVICE) | _for_each("workers multiprocessing", PROCESSES),
    "data.kind": _for_each("mnist fashion_mnist fashionmnist emnist femnist cifar10 cifar100 cifar-10 cifar svhn", HUB)
    | _for_each("shakespeare sent140 celeba imagenet tinyimagenet agnews imdb", HUB)
    | _for_each("csv parquet pandas dataframe file files", "Files of rows: data.kind = 'table' with data.path.")
    | _for_each("npz numpy arrays", "Arrays in a file: data.kind = 'images' with data.path."),
    "partition.kind": _for_each(
        "non_iid noniid non-iid niid dir label_skew lda", "Use kind = 'dirichlet' with concentration = 0.3."
    )
    | _for_each("pathological", "Use kind = 'shards'."),
    "model.kind": _for_each("resnet resnet18 resnet20 lenet lenet5 vgg vgg11 vit bert", OWN_MODEL)
    | _for_each("logreg logistic_regression lr", "Use kind = 'logistic'.")
    | _for_each("linear_svm svc", "Use kind = 'svm'."),
    "algorithm.kind": _for_each(
        "krum multi_krum multikrum bulyan trimmed_mean fedtrimmedavg fedmedian median qfedavg dpfedavg",
        "A Flower strategy can be passed from Python: fs.simulate(scenario, strategy=...).",
    )
    | _for_each("fedopt", "Use one of fedadam, fedyogi, fedadagrad, fedavgm."),
}
"""What fedscape has instead of a value, by key."""


def answer(key: str) -> str:
    """Return what fedscape has instead of a key or an option of another tool; empty if it is not known.

    Example:
        >>> answer("--num-rounds")
        'Use --set run.rounds=N.'
    """
    return KEYS.get(key.strip("-").lower().replace("-", "_"), "")


def choose(mistaken: str, sections: Iterable[str]) -> str:
    """Return the section that a section of another tool corresponds to, if it is one of `sections`; else empty."""
    section = SECTIONS.get(mistaken.lower(), "")
    return section if section in set(sections) else ""
