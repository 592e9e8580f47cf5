def lean_step(model, ids, positions, mask, cache):
    return None
