"""The mathematical data sets. No I/O.

The hub's file of MATH-500 is the original byte for byte; its GSM8K and MATH are pinned by commit
and by content.
"""

from __future__ import annotations

from pellucid.data.dataset import Dataset, Split

_COMPETITION = "problem text (c) the competition's organiser"

_MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)


def _math_files(split: str) -> tuple[str, ...]:
    return tuple(f"{subject}/{split}-00000-of-00001.parquet" for subject in _MATH_SUBJECTS)


MATH_SETS = (
    Dataset(
        name="gsm8k",
        title="GSM8K, grade-school word problems (Cobbe et al. 2021)",
        host="hub",
        repository="openai/gsm8k",
        revision="740312add88f781978c0658806c59bc2815b9866",
        licence="MIT",
        rights="A",
        first_public="2021-10-27",
        reader="gsm8k",
        splits=(
            Split(
                name="train",
                rows=7473,
                folder_file="gsm8k/train.jsonl.gz",
                original_sha256="17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
                remote_files=("main/train-00000-of-00001.parquet",),
                content_sha256="1508a2ed25f3469a8cc372b00420d827fa20a26cfcc17ba4e68559667c7cba07",
            ),
            Split(
                name="test",
                rows=1319,
                folder_file="gsm8k/test.jsonl.gz",
                original_sha256="3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
                remote_files=("main/test-00000-of-00001.parquet",),
                content_sha256="d5e6fb3c964e28d401f9ac706d0a2252adaa7cd15d1369a118c3075d8fb5fd92",
            ),
        ),
    ),
    Dataset(
        name="math",
        title="MATH, competition problems (Hendrycks et al. 2021)",
        host="hub",
        repository="EleutherAI/hendrycks_math",
        revision="21a5633873b6a120296cce3e2df9d5550074f4a3",
        licence="MIT (the authors'); a notice of AoPS of 2025-01-02 claims the text",
        rights="B",
        first_public="2021-03-05",
        reader="math",
        order="hash",
        splits=(
            Split(
                name="train",
                rows=7500,
                folder_file="math/MATH_train.tar.gz",
                original_sha256="35e435d536fb8c30928ae1d3c79473bb911880aa452500485c3548cb4ea5b494",
                remote_files=_math_files("train"),
                content_sha256="330825b643385d9534f51da2e1df35942c8fc329a483e90d5e045d05c29ac68c",
            ),
            Split(
                name="test",
                rows=5000,
                folder_file="math/MATH_test.tar.gz",
                original_sha256="71608229f7da759af45f42c91b9d6e4569041d21aaba90f21dc0b4b98762b5f3",
                remote_files=_math_files("test"),
                content_sha256="d5cafadb2b2ee84c9360f85fcedff052b7c624e4ecf1617f76f92054a9ab04f6",
            ),
        ),
    ),
    Dataset(
        name="math-500",
        title="MATH-500, a subset of the MATH test split (Lightman et al. 2023)",
        host="hub",
        repository="HuggingFaceH4/MATH-500",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        licence="MIT (openai/prm800k); text as in MATH",
        rights="B",
        first_public="2021-03-05",
        reader="math-500",
        splits=(
            Split(
                name="test",
                rows=500,
                folder_file="math/math500_test.jsonl.gz",
                original_sha256="35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
                remote_files=("test.jsonl",),
                content_sha256="e5d7e13f29384519c5d475140d6abebbc7b1d3aaeb984af80d300a2c6935c95e",
            ),
        ),
    ),
    Dataset(
        name="aime-2024",
        title="AIME 2024 I and II",
        host="github",
        repository="PRIME-RL/TTRL",
        revision="3e2cc9376dc7486256f6021b37c4353d0e1abe2b",
        licence=f"MIT (publisher); {_COMPETITION} (MAA)",
        rights="B",
        first_public="2024-02",
        reader="aime",
        splits=(
            Split(
                name="test",
                rows=30,
                folder_file="aime-2024/aime24.json",
                original_sha256="f52c531f6919731115b491d056be701e760e115d4b1cd5b57f48de2251a85d66",
                remote_files=("verl/data/AIME-TTT/test.json",),
                content_sha256="9543c4bb03218324d5d51486e4d01f6eeb2ba528f2c3037f4b8cf8ad68dff41e",
            ),
        ),
    ),
    Dataset(
        name="aime-2025",
        title="AIME 2025 I and II",
        host="github",
        repository="jianzhnie/LLMEval",
        revision="66572ad3f66078c376d777866f6535d3f334b0c8",
        licence=f"Apache-2.0 (publisher); {_COMPETITION} (MAA)",
        rights="B",
        first_public="2025-02",
        reader="aime",
        splits=(
            Split(
                name="test",
                rows=30,
                folder_file="aime-2025/aime25.jsonl",
                original_sha256="9da60057135388687f3c594476b211538d0be8e7f3b2de6e680513281412c0ec",
                remote_files=("data/aime25.jsonl",),
                content_sha256="7b44a206378e42f02af94c4d4f5701de0b04d5d0bac81fb7f33d7c8a4a253658",
            ),
        ),
    ),
    Dataset(
        name="amc-2023",
        title="AMC 12 2023, the usual 40 problems",
        host="github",
        repository="QwenLM/Qwen2.5-Math",
        revision="a45202bd16f1ec06f433442dc1152d0074773465",
        licence=f"MIT (publisher); {_COMPETITION} (MAA)",
        rights="B",
        first_public="2023-11",
        reader="amc",
        splits=(
            Split(
                name="test",
                rows=40,
                folder_file="amc-2023/amc23.jsonl",
                original_sha256="43707e1ca784602d8479de24ee8ce36609dbebc46dd152b0b12a46611aa898a4",
                remote_files=("evaluation/data/amc23/test.jsonl",),
                content_sha256="f855a22dc33681c3dc74ea0fb6a63091dc736d75360b687f8a80d71875568c8d",
            ),
        ),
    ),
    Dataset(
        name="dapo-math-17k",
        title="DAPO-Math-17k without repetitions (Yu et al. 2025)",
        host="github",
        repository="HaeChan0305/MLILAB-GRPO",
        revision="7e3a770c1cb66139e34c70581e8e9540b360df9f",
        licence="Apache-2.0 (publisher); much of the text from AoPS",
        rights="B",
        first_public="2025-03",
        reader="dapo",
        splits=(
            Split(
                name="train",
                rows=17398,
                folder_file="dapo-math-17k/dapo_math_17k.parquet",
                original_sha256="7ac706bb578ae668950bf0abe33b4f332fdca1d51d5b0ea4168efa6c6d018f0b",
                remote_files=("data/DAPO/train.parquet",),
                content_sha256="2439ed57fc22146388cb9a635e2794eac7b99b62d1cc0b0034877c3d460286e0",
            ),
        ),
        note="holds problems of MATH test, MATH-500 and AMC 2023: see `pellucid data check`",
    ),
    Dataset(
        name="svamp",
        title="SVAMP, easy word problems (Patel et al. 2021)",
        host="github",
        repository="arkilpatel/SVAMP",
        revision="689d7ccac74b9983a2ac7cc3b264f441b99e7c53",
        licence="MIT",
        rights="A",
        first_public="2021-03-12",
        reader="svamp",
        splits=(
            Split(
                name="test",
                rows=1000,
                folder_file="svamp/SVAMP.json",
                original_sha256="5be77703a6d891ae476d7c082787ad361392aa02453b132516cdd5f4e7934e3e",
                remote_files=("SVAMP.json",),
                content_sha256="ab25fd9e7fd38fa24012efd411d729bc6cc354886c6c64483425c1fcddf6655e",
            ),
        ),
    ),
    Dataset(
        name="gsm-plus",
        title="GSM-Plus testmini, perturbed GSM8K test questions (Li et al. 2024)",
        host="github",
        repository="qtli/GSM-Plus",
        revision="3474129ec12fcd3e8ac08cb037aca1928efca98c",
        licence="CC BY-SA 4.0",
        rights="A",
        first_public="2024-02-29",
        reader="gsm-plus",
        family="the eight perturbations of one GSM8K test question",
        splits=(
            Split(
                name="test",
                rows=2400,
                folder_file="gsm-plus/gsmplus_testmini.jsonl.gz",
                original_sha256="6653b4b941956da12ba0af2eae660800db13a901123553b163b77be2d20eb7d5",
                remote_files=("dataset/gsmplus_testmini.jsonl",),
                content_sha256="eb2b11be7e94d180de32f153a471b440e2908654e2e79d805cdf793dbfedb90f",
            ),
        ),
        note="300 'critical thinking' rows lack an answer on purpose and are refused",
    ),
)
