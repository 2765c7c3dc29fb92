"""The world: entities, the facts about each, and the facts that are held out for evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from embedline.data.demo.attribute import Attribute
from embedline.data.demo.attributes_common import COMMON_ATTRIBUTES
from embedline.data.demo.attributes_device import DEVICE_ATTRIBUTES
from embedline.data.demo.attributes_service import SERVICE_ATTRIBUTES
from embedline.data.demo.grammar import Entity
from embedline.data.demo.things import KINDS, NAME_ENDS, NAME_MIDDLES, NAME_STARTS, TRAITS

ENTITIES = 240
FACTS_PER_ENTITY = 10
EVALUATED_ENTITIES = 72
HELD_OUT_PER_EVALUATED_ENTITY = 3

ATTRIBUTES: tuple[Attribute, ...] = (*DEVICE_ATTRIBUTES, *COMMON_ATTRIBUTES, *SERVICE_ATTRIBUTES)


@dataclass(frozen=True)
class Fact:
    """The value of one attribute for one entity: the index of the value, the same in both languages.

    `siblings` are the other attributes of which the entity has a fact.
    """

    key: str
    entity: Entity
    attribute: Attribute
    value: int
    siblings: tuple[Attribute, ...]


@dataclass(frozen=True)
class World:
    """All facts; those in `held_out` are in evaluation sets only, among all of `evaluated`."""

    entities: tuple[Entity, ...]
    facts: tuple[Fact, ...]
    evaluated: tuple[Fact, ...]
    held_out: tuple[Fact, ...]

    def facts_of(self, entity: Entity) -> list[Fact]:
        """Return the facts about one entity, in the order of the world."""
        return [fact for fact in self.facts if fact.entity.key == entity.key]


def attributes_of(entity: Entity) -> list[Attribute]:
    """Return every attribute that fits the entity."""
    own = DEVICE_ATTRIBUTES if entity.kind.family == "device" else SERVICE_ATTRIBUTES
    return [*own, *COMMON_ATTRIBUTES]


def build_world(rng: Random) -> World:
    """Draw entities and facts. Evaluated entities come in sibling groups: same kind, other trait.

    A held-out fact shares its entity with facts that are trained on, and its attribute with other entities.
    """
    entities = _entities(rng)
    facts: list[Fact] = []
    for entity in entities:
        chosen = rng.sample(attributes_of(entity), FACTS_PER_ENTITY)
        for attribute in chosen:
            value = rng.randrange(len(attribute.ru.values))
            siblings = tuple(other for other in chosen if other.key != attribute.key)
            facts.append(Fact(f"{entity.key}-{attribute.key}", entity, attribute, value, siblings))
    kinds = sorted({entity.kind.key for entity in entities})
    rng.shuffle(kinds)
    by_kind = sorted(entities, key=lambda entity: (kinds.index(entity.kind.key), entity.key))
    shown = {entity.key for entity in by_kind[:EVALUATED_ENTITIES]}
    evaluated = [fact for fact in facts if fact.entity.key in shown]
    held_out: list[Fact] = []
    for key in sorted(shown):
        own = [fact for fact in evaluated if fact.entity.key == key]
        held_out.extend(rng.sample(own, HELD_OUT_PER_EVALUATED_ENTITY))
    return World(tuple(entities), tuple(facts), tuple(evaluated), tuple(held_out))


def _entities(rng: Random) -> list[Entity]:
    """Draw distinct (kind, trait) pairs, each with a brand name and a code of its own."""
    pairs = rng.sample([(kind, trait) for kind in KINDS for trait in TRAITS], ENTITIES)
    roots = rng.sample([(start, middle) for start in NAME_STARTS for middle in NAME_MIDDLES], ENTITIES)
    names = [(*root, rng.choice(NAME_ENDS)) for root in roots]
    codes = rng.sample(range(100, 1000), ENTITIES)
    return [
        Entity(
            key=f"e{index:03d}",
            kind=kind,
            trait=trait,
            name_en="".join(part[0] for part in parts),
            name_ru="".join(part[1] for part in parts),
            code=f"{parts[0][0][0]}{code}",
        )
        for index, ((kind, trait), parts, code) in enumerate(zip(pairs, names, codes, strict=True))
    ]
