from tests.engine.conftest import calls, folder, pipe, teacher  # noqa: F401
