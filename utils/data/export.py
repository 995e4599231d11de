"""Examples as columns of a table, to be written to a file that `--train_file` reads."""

from utils.data.examples import Examples


def columns_of_examples(examples: Examples, rows=None, **more: list) -> dict[str, list]:
    """{column: values} of those rows (default: all): texts, the label by name, genre and id where there are some, and
    `more`, a list per column with one value for each of the rows. Where the data has a column of that name, as STS-B has
    `score`, ours is called selection_score."""
    task = examples.task
    rows = range(len(examples)) if rows is None else rows
    named = isinstance(task.text_columns[0], str)  # CoLA's training file has no header
    columns = dict(zip(task.text_names, examples.texts, strict=True))
    if examples.labels is not None:
        labels = examples.labels.tolist()
        values = [float(f"{value:.9g}") for value in labels] if task.regression else [task.labels[i] for i in labels]
        columns[task.label_column if named else task.hub_label_column] = values
    if examples.genres is not None:
        columns[task.genre_column] = examples.genres
    if task.id_column:
        columns[task.id_column] = examples.guids
    exported = {name: [values[i] for i in rows] for name, values in columns.items()}
    return exported | {f"selection_{name}" if name in exported else name: values for name, values in more.items()}
