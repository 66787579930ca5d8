"""Models made of models that are asked the same and answer as one: MLRun's routers. Served like any model; see router.py.

configured.py reads `--router`, router.py is the Servable, calling.py asks one member, answers.py and voting.py combine what they say.
"""
