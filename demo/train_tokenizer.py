"""Make demo/albert-tiny's tokenizer from the generated corpus; its result is committed, so nobody needs to run this.

  python -m demo.train_tokenizer --output_dir demo/albert-tiny

A byte-level BPE of 1,500 pieces, lower-cased: whole words of the corpus and the challenge sets, single bytes for
whatever else comes, so that no text is unknown to it.
"""

import random

from hans import generate as challenge
from hans import lexicon
from hans.lexicon import Words
from utils.command_line import ArgumentParser, parse_args
from utils.errors import run_script


def corpus():
    """Sentences with all the words of both generators."""
    from demo import generate

    words = {"people": lexicon.OTHER_PEOPLE, "transitive": lexicon.OTHER_TRANSITIVE, "places": lexicon.OTHER_PLACES}
    for seed, vocabulary in enumerate(({}, words)):
        rows = generate.make_split(4000, Words(random.Random(seed), **vocabulary), counters=400, taken=set())
        yield from (text for row in rows for text in row[:2])
    yield from (text for row in challenge.generate(200, 1, "train") for text in (row["sentence1"], row["sentence2"]))


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__, prog="demo.train_tokenizer")
    parser.add_argument("--output_dir", required=True, help="folder for tokenizer.json and tokenizer_config.json")
    args = parse_args(parser, argv)

    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(corpus(), trainer)
    ids = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=128,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **dict(zip(names, special, strict=True)),
    )
    tokenizer.save_pretrained(args.output_dir)
    print(f"{len(tokenizer)} pieces in {args.output_dir}")


if __name__ == "__main__":
    run_script(main)
