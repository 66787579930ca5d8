"""The local store of models: projects and artifacts that were built or pulled, under names and tags, with every file's hash.

The records are the store's (dragoman.store); the files lie below the data directory. `references` are the names, `packing` copies and
checks files, `building` makes a model of a project, `library` keeps them, `transfer` moves them between stores.
"""
