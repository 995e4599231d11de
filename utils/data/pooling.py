"""Which tokens' states make the embedding of an example: what `--pooling` means for each kind of model. Reads configs
only, so that a script can know the name of an embeddings file before any model exists."""

from utils.errors import InputError

ENCODER, DECODER, ENCODER_DECODER = "an encoder", "a decoder", "an encoder-decoder"
POOLINGS = ("auto", "cls", "pooler", "mean", "last")


def kind_of(config) -> str:
    """ENCODER, DECODER (each token sees those before it alone) or ENCODER_DECODER."""
    from transformers.models.auto import modeling_auto

    if config.is_encoder_decoder:
        return ENCODER_DECODER
    causal = config.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = config.model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return DECODER if getattr(config, "is_decoder", False) or (causal and not masked) else ENCODER


def choose_pooling(config, asked: str) -> str:
    """The pooling that `asked` stands for: "auto" is "cls" for encoders, else "last". Raises InputError where the first
    token cannot stand for the example."""
    kind = kind_of(config)
    if asked == "auto":
        return "cls" if kind == ENCODER else "last"
    if asked == "cls" and kind != ENCODER:
        why = {
            DECODER: "its first token sees no other, so all examples that begin with the same word would be equal",
            ENCODER_DECODER: "its decoder has no [CLS] token; the end of the sentence, its last token, stands for the text",
        }
        raise InputError(
            f"--pooling cls: {config.model_type} is {kind}: {why[kind]}; give --pooling last (what auto takes), mean or "
            "pooler"
        )
    return asked
