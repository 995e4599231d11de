"""The optimizer and the learning-rate schedule."""

import math

import torch

from utils.flags import TrainingSettings


def make_optimizer(model, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimizer that --optim names, without weight decay on biases and normalisation layers, as BERT and ALBERT were trained."""
    # Some families have a normalisation layer of their own, for example LlamaRMSNorm.
    norms = [module for module in model.modules() if type(module).__name__.endswith("Norm")]
    exempt = {id(parameter) for module in norms for parameter in module.parameters()}
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if name.endswith("bias") or id(parameter) in exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    name = settings.optim.removesuffix("_fused").removesuffix("_torch")
    kinds = {kind.lower(): kind for kind in vars(torch.optim)}
    options = {}
    if name in ("adam", "adamw", "adamax", "nadam", "radam"):
        options |= {"betas": (settings.adam_beta1, settings.adam_beta2), "eps": settings.adam_epsilon}
    if settings.optim in ("adamw", "adamw_torch_fused"):
        options["fused"] = True  # one pass over memory: otherwise a tenth of a small batch's step on a CPU
    groups = [group for group in groups if group["params"]]
    return getattr(torch.optim, kinds[name])(groups, lr=settings.learning_rate, **options)


def learning_rate_schedule(settings: TrainingSettings, num_steps: int):
    """step -> learning rate: the library's schedule as a function, so that nothing needs replaying after a kill."""
    from transformers import get_scheduler

    warmup = settings.warmup_steps
    if warmup < 1:
        warmup = math.ceil((warmup or settings.warmup_ratio) * num_steps)
    dummy = torch.optim.SGD([torch.zeros(1)], lr=settings.learning_rate)
    schedule = get_scheduler(settings.lr_scheduler_type, dummy, warmup, num_steps)
    return lambda step: settings.learning_rate * schedule.lr_lambdas[0](step)
