"""Explanations for models that bring none: `--explain NAME=METHOD[:OPTION=VALUE...]` wraps a model of this worker, with SHAP (extra `explain`).

options.py reads the setting, background.py the data that stands for what is usual, table.py mixes both with a request, explained.py is the
servable around the model. server/defaults.py and server/loading.py call them.
"""
