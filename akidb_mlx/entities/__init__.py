"""Named entities of texts, each with its label and its exact place in characters and bytes.

    from akidb_mlx.entities import EntityExtractor

    with EntityExtractor("en_core_web_sm") as extractor:
        entities = extractor.extract("Alice met Bob in Paris")

The extra `ner` (spaCy) is needed; spaCy is imported when the first extractor is made.
"""

from akidb_mlx.entities.entity import Entity, MergedEntity, count_labels, merge_entities
from akidb_mlx.entities.extractor import EntityExtractor

__all__ = ["Entity", "EntityExtractor", "MergedEntity", "count_labels", "merge_entities"]
