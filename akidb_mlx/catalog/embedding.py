"""Embedding models, by what their cards state."""

from __future__ import annotations

from akidb_mlx.catalog.record import ModelRecord

_MB = 10**6
_BGE_PROMPTS = {"query": "Represent this sentence for searching relevant passages: "}
_E5_PROMPTS = {"query": "query: ", "document": "passage: "}
_NOMIC_PROMPTS = {
    "query": "search_query: ",
    "document": "search_document: ",
    "Classification": "classification: ",
    "Clustering": "clustering: ",
}

EMBEDDING_MODELS = (
    # The three that AkiDB ships with.
    ModelRecord(
        name="qwen3-0.6b-4bit",
        repo_id="mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ",
        description="Qwen3-Embedding 0.6B, 4-bit: multilingual, instructions, 512 of 1024 dimensions",
        licence="Apache-2.0",
        size=335 * _MB,
        languages=("multilingual",),
        vector_size=1024,
        dimensions=512,
        matryoshka=True,
        max_tokens=32768,
    ),
    ModelRecord(
        name="gemma-300m-4bit",
        repo_id="mlx-community/embeddinggemma-300m-4bit",
        description="EmbeddingGemma 300M, 4-bit: multilingual, task prompts, 768 dimensions",
        licence="Gemma terms of use",
        size=170 * _MB,
        languages=("multilingual",),
        vector_size=768,
        matryoshka=True,
        max_tokens=2048,
    ),
    ModelRecord(
        name="minilm-l6-v2",
        repo_id="sentence-transformers/all-MiniLM-L6-v2",
        description="all-MiniLM-L6-v2: English, small and fast, 384 dimensions",
        licence="Apache-2.0",
        size=91 * _MB,
        vector_size=384,
        max_tokens=256,
    ),
    # English
    ModelRecord(
        name="all-minilm-l12-v2",
        repo_id="sentence-transformers/all-MiniLM-L12-v2",
        description="all-MiniLM-L12-v2: twice the layers of minilm-l6-v2",
        licence="Apache-2.0",
        size=130 * _MB,
        vector_size=384,
        max_tokens=128,
    ),
    ModelRecord(
        name="all-mpnet-base-v2",
        repo_id="sentence-transformers/all-mpnet-base-v2",
        description="all-mpnet-base-v2: similar sentences",
        licence="Apache-2.0",
        size=440 * _MB,
        vector_size=768,
        max_tokens=384,
    ),
    ModelRecord(
        name="multi-qa-mpnet-base",
        repo_id="sentence-transformers/multi-qa-mpnet-base-dot-v1",
        description="multi-qa-mpnet-base-dot-v1: passages that answer a question; not normalised by its publisher",
        licence="Apache-2.0",
        size=440 * _MB,
        vector_size=768,
    ),
    *(
        ModelRecord(
            name=f"bge-{size}-en-v1.5",
            repo_id=f"BAAI/bge-{size}-en-v1.5",
            description=f"BGE {size}: search, with a prompt before queries",
            licence="MIT",
            size=megabytes * _MB,
            vector_size=vector_size,
            prompts=_BGE_PROMPTS,
        )
        for size, megabytes, vector_size in (("small", 130, 384), ("base", 440, 768), ("large", 1300, 1024))
    ),
    *(
        ModelRecord(
            name=f"gte-{size}",
            repo_id=f"thenlper/gte-{size}",
            description=f"GTE {size}: search and similarity without prompts",
            licence="MIT",
            size=megabytes * _MB,
            vector_size=vector_size,
        )
        for size, megabytes, vector_size in (("small", 67, 384), ("base", 220, 768), ("large", 670, 1024))
    ),
    ModelRecord(
        name="mxbai-embed-large-v1",
        repo_id="mixedbread-ai/mxbai-embed-large-v1",
        description="mxbai-embed-large: search, with a prompt before queries",
        licence="Apache-2.0",
        size=670 * _MB,
        vector_size=1024,
        matryoshka=True,
        prompts=_BGE_PROMPTS,
    ),
    *(
        ModelRecord(
            name=f"arctic-embed-{size}",
            repo_id=f"Snowflake/snowflake-arctic-embed-{size}",
            description=f"Arctic Embed {size.upper()}: search, with a prompt before queries",
            licence="Apache-2.0",
            size=megabytes * _MB,
            vector_size=vector_size,
            prompts=_BGE_PROMPTS,
        )
        for size, megabytes, vector_size in (("s", 130, 384), ("m", 440, 768), ("l", 1300, 1024))
    ),
    ModelRecord(
        name="nomic-embed-text-v1.5",
        repo_id="nomic-ai/nomic-embed-text-v1.5",
        description="nomic-embed-text v1.5: long texts, a prompt for each task",
        licence="Apache-2.0",
        size=550 * _MB,
        vector_size=768,
        max_tokens=8192,
        prompts=_NOMIC_PROMPTS,
    ),
    ModelRecord(
        name="modernbert-embed-base",
        repo_id="nomic-ai/modernbert-embed-base",
        description="ModernBERT trained by Nomic: long texts, a prompt for each task",
        licence="Apache-2.0",
        size=600 * _MB,
        vector_size=768,
        matryoshka=True,
        max_tokens=8192,
        prompts=_NOMIC_PROMPTS,
    ),
    ModelRecord(
        name="gte-modernbert-base",
        repo_id="Alibaba-NLP/gte-modernbert-base",
        description="GTE on ModernBERT: long texts and code, no prompts",
        licence="Apache-2.0",
        size=300 * _MB,
        vector_size=768,
        max_tokens=8192,
    ),
    ModelRecord(
        name="granite-embedding-r2",
        repo_id="ibm-granite/granite-embedding-english-r2",
        description="Granite R2 on ModernBERT: long texts, code and tables, no prompts",
        licence="Apache-2.0",
        size=300 * _MB,
        vector_size=768,
        max_tokens=8192,
    ),
    # Other languages
    ModelRecord(
        name="paraphrase-multilingual-minilm",
        repo_id="sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        description="paraphrase-multilingual-MiniLM-L12-v2: similar sentences across languages",
        licence="Apache-2.0",
        size=470 * _MB,
        languages=("multilingual",),
        vector_size=384,
        max_tokens=128,
    ),
    *(
        ModelRecord(
            name=f"multilingual-e5-{size}",
            repo_id=f"intfloat/multilingual-e5-{size}",
            description=f"Multilingual E5 {size}: search, with prompts before queries and passages",
            licence="MIT",
            size=megabytes * _MB,
            languages=("multilingual",),
            vector_size=vector_size,
            prompts=_E5_PROMPTS,
        )
        for size, megabytes, vector_size in (("small", 470, 384), ("base", 1100, 768), ("large", 2200, 1024))
    ),
    ModelRecord(
        name="arctic-embed-l-v2.0",
        repo_id="Snowflake/snowflake-arctic-embed-l-v2.0",
        description="Arctic Embed L 2.0: search across languages, long texts, 256 of 1024 dimensions if wanted",
        licence="Apache-2.0",
        size=2300 * _MB,
        languages=("multilingual",),
        vector_size=1024,
        matryoshka=True,
        max_tokens=8192,
        prompts={"query": "query: "},
    ),
    ModelRecord(
        name="qwen3-embedding-0.6b",
        repo_id="Qwen/Qwen3-Embedding-0.6B",
        description="Qwen3-Embedding 0.6B, unquantised: multilingual, instructions, long texts",
        licence="Apache-2.0",
        size=1200 * _MB,
        languages=("multilingual",),
        vector_size=1024,
        matryoshka=True,
        max_tokens=32768,
    ),
    ModelRecord(
        name="embeddinggemma-300m",
        repo_id="google/embeddinggemma-300m",
        description="EmbeddingGemma 300M, unquantised: multilingual, task prompts; gated on the Hub",
        licence="Gemma terms of use",
        size=1200 * _MB,
        languages=("multilingual",),
        vector_size=768,
        matryoshka=True,
        max_tokens=2048,
    ),
    # Static: no encoder, and hundreds of times faster
    *(
        ModelRecord(
            name=f"potion-{name}",
            repo_id=f"minishlab/potion-{name}",
            description=description,
            licence="MIT",
            size=megabytes * _MB,
            languages=("multilingual",) if "multilingual" in name else ("en",),
            vector_size=vector_size,
        )
        for name, megabytes, vector_size, description in (
            ("base-8M", 30, 256, "Potion 8M: a table of tokens and a mean; the fastest"),
            ("base-32M", 130, 512, "Potion 32M: a table of tokens and a mean"),
            ("retrieval-32M", 130, 512, "Potion 32M for search: a table of tokens and a mean"),
            ("multilingual-128M", 510, 256, "Potion 128M: a table of tokens and a mean, in 101 languages"),
        )
    ),
)
