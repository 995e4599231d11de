"""The optimizer and the learning-rate schedule."""

import math

import torch

from utils.flags import TrainingSettings


def make_optimizer(model, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW without weight decay on biases and normalisation layers, as BERT and ALBERT were trained."""
    norms = (torch.nn.LayerNorm,)
    exempt = {id(p) for module in model.modules() if isinstance(module, norms) for p in module.parameters()}
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if name.endswith("bias") or id(parameter) in exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        fused=True,  # one pass over memory: on a CPU a tenth of a small batch's step otherwise
    )


def learning_rate_schedule(settings: TrainingSettings, num_steps: int):
    """step -> learning rate: the library's schedule as a function, so that nothing needs replaying after a kill."""
    from transformers import get_scheduler

    warmup = settings.warmup_steps or math.ceil(settings.warmup_ratio * num_steps)
    dummy = torch.optim.SGD([torch.zeros(1)], lr=settings.learning_rate)
    schedule = get_scheduler(settings.lr_scheduler_type, dummy, warmup, num_steps)
    return lambda step: settings.learning_rate * schedule.lr_lambdas[0](step)
