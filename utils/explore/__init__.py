"""The explorer: one HTML page of the examples, their maps, and the Selections made of them. `columns` collects what is
known of each example, `compare` sets Selections beside each other, `page` writes the page from `template.html`,
`explorer.css` and `explorer.js`. `explore.py` uses `build.write_explorer`. plotly, which draws, is needed here only.
"""
