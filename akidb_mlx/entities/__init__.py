"""Named entities of a text: who, where, when, and exactly at which characters and bytes.

    from akidb_mlx.entities import EntityExtractor

    with EntityExtractor("en_core_web_sm") as extractor:
        entities = extractor.extract("Alice met Bob in Paris")

It needs the extra `ner` (spaCy), which is imported when the first extractor is made.
"""

from akidb_mlx.entities.entity import Entity, MergedEntity, count_labels, merge_entities
from akidb_mlx.entities.extractor import EntityExtractor

__all__ = ["Entity", "EntityExtractor", "MergedEntity", "count_labels", "merge_entities"]
