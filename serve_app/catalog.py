"""Which models are deployed and under what names they and their voices can be asked for.

A pure table: knows nothing of HTTP, Ray or the store.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from serve_app.errors import ConfigError, ModelNotFound
from serve_app.near import SHOWN_CHARS, near_names, near_words
from serve_app.parameters import Defaults

__all__ = ["Catalog", "Model"]

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Model:
    """What a request selects. `draft` is true where the engine speaks, but does not clone."""

    name: str
    engine: str
    draft: bool
    builtin_voices: tuple[str, ...]
    default_voice: str
    license: str
    languages: tuple[str, ...]  # BCP 47 tags
    defaults: Defaults = field(default_factory=Defaults)


class Catalog:
    """The deployed models, the default one, and aliases for models and voices.

    Raises ConfigError when `default_model` or the target of an alias is not deployed.
    """

    def __init__(
        self,
        models: Sequence[Model],
        default_model: str | None = None,
        model_aliases: Mapping[str, str] | None = None,
        voice_aliases: Mapping[str, str] | None = None,
    ) -> None:
        self._models = {model.name: model for model in models}
        self._aliases = dict(model_aliases or {})
        self._voice_aliases = dict(voice_aliases or {})
        self.default = self._models[self._default_name(default_model)]
        for alias, target in self._aliases.items():
            if target != DEFAULT and target not in self._models:
                raise ConfigError(
                    f"aliases.models.{alias} is {target!r}, which is not deployed: use one of {self._names()} "
                    f"or {DEFAULT!r}"
                )
        for alias, target in self._voice_aliases.items():
            if target in self._voice_aliases:
                raise ConfigError(f"aliases.voices.{alias} is {target!r}, an alias itself: name the voice it means")

    @property
    def models(self) -> tuple[Model, ...]:
        return tuple(self._models.values())

    @property
    def aliases(self) -> Mapping[str, Model]:
        """Every alias of a model with the model that it means."""
        return {alias: self.model(alias) for alias in self._aliases if alias not in self._models}

    def model(self, name: str | None) -> Model:
        """The model of that name or alias; the default model for None. Raises ModelNotFound."""
        if name is None or name == DEFAULT:
            return self.default
        if name in self._models:
            return self._models[name]
        target = self._aliases.get(name)
        if target is None:
            near = near_words(near_names(name, {*self._models, *self._aliases}))
            raise ModelNotFound(
                f"model {name[:SHOWN_CHARS]!r} is not deployed{near}: use one of {self._names()}, an alias "
                f"({', '.join(sorted(self._aliases)) or 'none'}), or leave `model` out for {self.default.name!r}"
            )
        return self.default if target == DEFAULT else self._models[target]

    @property
    def voice_aliases(self) -> Collection[str]:
        """Every alias of a voice."""
        return self._voice_aliases.keys()

    def voice_alias(self, name: str, model: Model) -> str | None:
        """The voice that the alias `name` means for `model`; None if it is no alias."""
        target = self._voice_aliases.get(name)
        return model.default_voice if target == DEFAULT else target

    def _default_name(self, wanted: str | None) -> str:
        if wanted is not None:
            if wanted not in self._models:
                raise ConfigError(f"default_model is {wanted!r}, which is not deployed: use one of {self._names()}")
            return wanted
        cloning = [model.name for model in self._models.values() if not model.draft]
        return (cloning or list(self._models))[0]

    def _names(self) -> str:
        return ", ".join(sorted(self._models))
