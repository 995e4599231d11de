"""A Selection in the Trainer of transformers: the chosen rows, with their weights in the loss."""

import logging

from transformers import Trainer

from utils.errors import InputError
from utils.selection.selection import Selection
from utils.training.objectives import per_example_loss

logger = logging.getLogger(__name__)

WEIGHT = "weight"


def chosen_examples(dataset, path):
    """The rows of a `datasets.Dataset` that the selection in `path` chooses, repeats too, with their weights as a column.

    dataset: all labelled rows of the training file, in its order. Raises InputError where it has another number of rows.
    """
    selection = Selection.load(path)
    if len(dataset) != selection.n_total:
        raise InputError(
            f"{path}: chosen from {selection.n_total} rows, but the data set has {len(dataset)}. Rows without a gold label do "
            "not count: filter them out first"
        )
    if selection.ordered:
        logger.warning("%s: its rows have an order, which a Trainer that shuffles does not keep", path)
    return dataset.select(selection.indices).add_column(WEIGHT, selection.weights.tolist())


class WeightedTrainer(Trainer):
    """A Trainer whose training loss is the mean of weight x loss of each example. Evaluation is not weighted."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False  # our loss is a mean, which the Trainer divides by the accumulated steps

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, WEIGHT]))

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        weights = inputs.pop(WEIGHT, None)
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)
        if weights is None:
            raise InputError("the training data has no column 'weight'; make it with chosen_examples")
        outputs = model(**{key: value for key, value in inputs.items() if key != "labels"})
        smoothing = self.args.label_smoothing_factor
        loss = (weights * per_example_loss(outputs.logits, inputs["labels"], smoothing=smoothing)).mean()
        return (loss, outputs) if return_outputs else loss
