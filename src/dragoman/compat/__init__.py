"""Stand-ins for packages that model files import. In a model's process this folder is first on sys.path, so that `import tungstenkit` finds it.

Nothing here is imported by the server. What is below imports its neighbours relatively, because it is known under two names: the model file's
(`tungstenkit`) and ours (`dragoman.compat.tungstenkit`).
"""
