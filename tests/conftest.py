"""For all tests: several run at once, so none is judged by its time."""

import hypothesis

hypothesis.settings.register_profile("parallel", deadline=None)
hypothesis.settings.load_profile("parallel")
