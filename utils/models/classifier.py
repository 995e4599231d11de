"""Loading and saving classifiers with their class names. A `Classifier` answers in the task's own label order, whatever
order its checkpoint numbers the classes in.
"""

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from utils.data import class_names as naming
from utils.data.hub import find_file, from_config, from_pretrained, load_config
from utils.data.pooling import ENCODER, kind_of
from utils.data.tokenizer import load_tokenizer, save_tokenizer, tokenizer_hash, uses_segments
from utils.errors import InputError
from utils.flags import ModelSettings
from utils.models.families import OTHER, family_of, final_linear, num_positions
from utils.models.probe import require_reliable

logger = logging.getLogger(__name__)


@dataclass
class Classifier:
    """A sequence-classification model, its tokenizer, and which of its outputs means which label.

    labels: class names in the order of the logits we hand out, () for regression; columns: int64 (C,) model output of
    each label, None where the two orders agree; named: the checkpoint, or the user, said what its outputs mean.
    """

    model: torch.nn.Module
    tokenizer: object
    labels: tuple[str, ...]
    columns: torch.Tensor | None = None
    named: bool = True

    @property
    def segments(self) -> bool:
        return uses_segments(self.model.config)

    def fitting_length(self, asked: int) -> int:
        """`asked` tokens per pair, or the model's number of positions, with a warning, where that is less."""
        room = num_positions(self.model)
        if not room or asked <= room:
            return asked
        logger.warning("--max_seq_length %d is more than the model's %d positions: using %d", asked, room, room)
        return room

    def in_label_order(self, logits: torch.Tensor) -> torch.Tensor:
        """(n, C) model outputs -> (n, C) logits by label."""
        return logits if self.columns is None else logits.index_select(1, self.columns.to(logits.device))

    def identity(self) -> dict[str, str]:
        """Hashes of the weights, of what the config says of the computation, and of the tokenizer: they tell two checkpoints of
        one folder name apart."""
        weights = hashlib.sha256()
        for _, parameter in sorted(self.model.named_parameters()):
            weights.update(parameter.detach().cpu().contiguous().numpy().tobytes())
        said = self.model.config.to_diff_dict()
        for name in ("id2label", "label2id", "_name_or_path", "transformers_version", "dtype", "torch_dtype"):
            said.pop(name, None)
        config = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
        return {
            "weights": weights.hexdigest()[:32],
            "config": config.hexdigest()[:32],
            "tokenizer": tokenizer_hash(self.tokenizer),
        }

    def name_outputs(self, names: tuple[str, ...]) -> None:
        """State what the outputs mean, by output number; kept in the config, so a saved copy says it too."""
        columns = naming.columns_of(self.labels, names)
        ordered = [self.labels[[naming.canonical(x) for x in self.labels].index(naming.canonical(n))] for n in names]
        _set_names(self.model.config, ordered)
        self.columns = None if (columns == range(len(columns))).all() else torch.from_numpy(columns)
        self.named = True


def load_classifier(
    labels: tuple[str, ...], settings: ModelSettings, *, seed: int = 0, need_head: bool = False
) -> Classifier:
    """Load the checkpoint that the settings name, or build a model with random weights from the config alone.

    `labels` () means regression. A checkpoint's named classes are matched by name. Unnamed ones (LABEL_0, ...) and a new
    classifier layer take --label_order. Without it, outputs are taken in the order of `labels`: those of a new layer for good,
    unnamed ones until `name_outputs` says otherwise (`named=False`). `need_head` refuses checkpoints that lack any part of a
    trained classifier. float32 throughout; new layers are initialised from `seed`. Raises InputError for anything that does
    not load or fit.
    """
    import transformers
    from transformers import AutoModelForSequenceClassification

    transformers.logging.set_verbosity_error()  # its load report says what we say ourselves, in one line
    transformers.logging.disable_progress_bar()
    source = settings.model_name_or_path or settings.config_name
    if not source:
        raise InputError("give --model_name_or_path, or --config_name to start from random weights")
    hub = {"cache_dir": settings.cache_dir, "revision": settings.model_revision}
    code = {"trust_remote_code": settings.trust_remote_code}
    config = load_config(settings.config_name or source, settings)
    stated = naming.stated_names(getattr(config, "id2label", None), labels)
    config.num_labels = max(len(labels), 1)
    config.problem_type = "single_label_classification" if labels else "regression"
    torch.manual_seed(seed)
    if settings.model_name_or_path:
        model, info = from_pretrained(
            AutoModelForSequenceClassification,
            source,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **hub,
            **code,
        )
        _say_how_read(source, hub)
        new = _new_parts(model, info, source)
    else:
        model = from_config(AutoModelForSequenceClassification, config, source, **code)
        new = [name for name, _ in model.named_parameters()]
    tokenizer = load_tokenizer(settings.tokenizer_name or source, **hub, **code)
    if kind_of(model.config) != ENCODER:
        _prepare_decoder(model, tokenizer)
    room = getattr(model.get_input_embeddings(), "num_embeddings", len(tokenizer))
    if len(tokenizer) > room:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens but the model only {room} embeddings; --tokenizer_name and "
            "--model_name_or_path / --config_name do not belong together"
        )
    if new and need_head:
        raise InputError(
            f"{source} holds no classifier for {max(len(labels), 1)} classes ({_some(new)}: not there or of another shape): "
            "its answers would be random. Fine-tune it first (--do_train), or give a fine-tuned checkpoint"
        )
    if family_of(model) is OTHER:
        require_reliable(model, tokenizer)
    fresh = f"{_final_linear_name(model)}.weight" in new
    classifier = Classifier(model, tokenizer, labels)
    if not labels:
        _set_names(model.config, ["score"])
    elif settings.label_order and settings.label_order != "auto":
        order = naming.parse_order(settings.label_order, labels)
        found = tuple(map(naming.canonical, stated or ()))
        if not fresh and found != order and sorted(found) == sorted(order):
            raise InputError(
                f"--label_order {settings.label_order}: {source} itself names its outputs {','.join(stated)}; leave the "
                "flag out, or correct id2label in its config.json"
            )
        classifier.name_outputs(order)
    elif fresh:
        _set_names(model.config, labels)
    elif stated is not None and not settings.label_order:
        classifier.name_outputs(stated)
    else:
        _set_names(model.config, labels)
        classifier.named = False
    return classifier


def save_classifier(classifier: Classifier, folder) -> None:
    """Write `config.json`, `model.safetensors` and the tokenizer so that the folder is a `--model_name_or_path`.

    Each file is written beside its place and renamed, the weights last.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".saving"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        classifier.model.save_pretrained(temporary)
        save_tokenizer(classifier.tokenizer, temporary, segments=classifier.segments)
        mode = (temporary / "config.json").stat().st_mode  # safetensors makes files that only their owner can read
        for path in sorted(temporary.iterdir(), key=lambda p: p.suffix == ".safetensors"):
            path.chmod(mode)
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _prepare_decoder(model, tokenizer) -> None:
    """Name a padding token where there is none, in the tokenizer and in the config, and keep no cache of a pass. A text
    that holds `</s>` or `<|endoftext|>` itself must not end there: heads look for these tokens."""
    tokenizer.split_special_tokens = True
    if tokenizer.pad_token_id is None:
        other = tokenizer.eos_token or tokenizer.unk_token
        if other is None:
            raise InputError(
                f"{type(tokenizer).__name__} has no token that can serve as padding; name a pad_token in it"
            )
        tokenizer.pad_token = other
        logger.info("the tokenizer has no padding token: %s serves as one", other)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = False  # of keys and values, for generation


def _new_parts(model, info, source) -> list[str]:
    """Names of the parameters that start with random values, because the checkpoint does not hold them.

    Raises InputError where an encoder parameter is among them, where the encoder has fewer parameters than the checkpoint
    holds, or where one is not finite.
    """
    weight, bias = (f"{_final_linear_name(model)}.{part}" for part in ("weight", "bias"))
    mismatched = {str(item[0] if isinstance(item, tuple) else item) for item in info.get("mismatched_keys", ())}
    missing = set(info.get("missing_keys", ()))
    if mismatched - {weight, bias} or mismatched == {bias}:
        raise InputError(f"{source}: weights do not fit its config ({_some(mismatched)})")
    if mismatched:
        logger.warning("%s: its classifier has another number of classes; a new one is initialised", source)
    encoder = [key for key in missing if _of_encoder(key, model)]
    if encoder:
        raise InputError(
            f"{source}: {len(encoder)} encoder weights are missing ({_some(encoder)}); the file is damaged or belongs to "
            "another architecture"
        )
    unused = [key for key in info.get("unexpected_keys", ()) if _of_encoder(key, model)]
    if unused:
        raise InputError(
            f"{source}: its config describes a smaller model than its weights are of ({_some(unused)} have no place in it); "
            "config.json and the weights do not belong together"
        )
    if missing:
        logger.warning("%s does not hold %s: they start with random values", source, ", ".join(sorted(missing)))
    broken = [name for name, parameter in model.named_parameters() if not torch.isfinite(parameter).all()]
    if broken:
        raise InputError(f"{source}: NaN or infinity among its weights ({_some(broken)}); the checkpoint is damaged")
    return sorted(missing | mismatched)


def _of_encoder(key: str, model) -> bool:
    # Some families save a pooler or position numbers that the classifier does not use.
    outside = ".pooler." in key or key.endswith("position_ids")
    return key.startswith(f"{model.base_model_prefix}.") and not outside


def _say_how_read(source: str, hub: dict) -> None:
    if find_file(source, "pytorch_model.bin", **hub) and not find_file(source, "model.safetensors", **hub):
        logger.info("%s: pytorch_model.bin is a pickle; torch's restricted unpickler took nothing but tensors", source)


def _final_linear_name(model) -> str:
    names = {id(module): name for name, module in model.named_modules()}
    return names[id(final_linear(model))]


def _some(names) -> str:
    """The first three names."""
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")


def _set_names(config, names) -> None:
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
