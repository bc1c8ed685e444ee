from sgfr_jax import locks


def test_one_of_two_has_it(tmp_path):
    with (tmp_path / "lock").open("w") as first, (tmp_path / "lock").open("w") as second:
        assert locks.take(first) and not locks.take(second)
        first.close()
        assert locks.take(second)


def test_where_there_are_no_locks_nothing_is_in_the_way(tmp_path, monkeypatch):
    class NoLocks:
        LOCK_EX, LOCK_NB = 2, 4

        @staticmethod
        def flock(file, how):
            raise OSError(37, "No locks available")

    with (tmp_path / "lock").open("w") as file:
        for fcntl in (NoLocks, None):
            monkeypatch.setattr(locks, "fcntl", fcntl)
            assert locks.take(file)
