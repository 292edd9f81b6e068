from ssl_lightning.config.messages import nearest


def test_nearest_compares_the_last_part():
    assert nearest("a.lrr", ["a.lr", "a.decay"]) == "did you mean 'a.lr'?"
    assert nearest("a.zzz", ["a.lr", "a.decay"]) == "known here: decay, lr."
    assert nearest("a", []) == "nothing can be set here."
