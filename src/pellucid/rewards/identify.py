"""Which language a text is in: by script, and within a script by its commonest words and letters.

Enough to tell whether an instruction "answer in Hindi" was followed; no identifier of research
quality. None where neither script nor words decide.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

MAX_CHARS = 20_000
"""Of a text, so much is looked at."""
_OWN_SCRIPT = {
    "HANGUL": "ko", "HIRAGANA": "ja", "KATAKANA": "ja", "CJK": "zh", "THAI": "th", "BENGALI": "bn",
    "TELUGU": "te", "TAMIL": "ta", "KANNADA": "kn", "GUJARATI": "gu", "GURMUKHI": "pa",
    "HEBREW": "he", "GREEK": "el", "MALAYALAM": "ml", "ORIYA": "or", "SINHALA": "si",
    "GEORGIAN": "ka", "ARMENIAN": "hy",
}  # fmt: skip
_WORDS = {
    "LATIN": {
        "en": "the of and to in is that it was for on are with as at be this have from or by not",
        "de": "der die und das ist nicht ein zu mit den von sie er es auf für eine im dem wie sich",
        "fr": "le la les de des et est un une dans que qui pour pas il elle sur au avec ce son",
        "es": "el la los las de y en que un una es por con para se del al no su lo como más",
        "pt": "o os as de e em que um uma é por com para não do da se no na mais ao são",
        "it": "il lo la gli di e in che un una è per con non si del della sono le ha come",
        "nl": "de het een en van is dat niet op te in met voor zijn er aan ook als bij maar",
        "sw": "na ya wa kwa ni katika za la kila yake hii au ana cha kuwa vya wake baada ngapi",
        "fi": "ja on ei että se oli hän ovat mutta kun niin myös joka sen olla kuin tai voi",
        "vi": "là và của có một không cho được trong người những với các này đã để khi bạn",
        "id": "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga ke adalah saya",
        "tr": "ve bir bu da için de ile çok daha ne gibi olarak var mi en kadar ama değil",
        "pl": "i w na z nie się do jest to że o jak po ale za od przez co tak dla",
        "sv": "och att det i som en på är av för med till den inte har de ett om var",
    },
    "CYRILLIC": {
        "ru": (
            "и в не на что он с как это по но из у за от она так же для все был "
            "если было они его их или чтобы сколько всего каждый"
        ),
        "bg": (
            "и на да се в за от не с че е са по като съм това до или ще си ако беше "
            "те той тя колко всеки"
        ),
        "uk": (
            "і в не на що він з як це по але у за від вона так та для є був якщо "
            "було вони його їх або щоб скільки всього кожен"
        ),
    },
    "ARABIC": {
        "ar": "في من على أن إلى هذا التي الذي كان عن مع لا ما هذه كل بعد و ذلك قد هو",
        "fa": "و در به از که این را با است برای آن یک می تا هم بر شود های خود او",
        "ur": "کے کی میں ہے کا اور سے کو یہ نے پر ہیں ایک وہ بھی تھا کہ اس ہو نہیں",
    },
    "DEVANAGARI": {
        "hi": "के की है में का से और को यह पर हैं एक ने कि भी था वह लिए नहीं कर",
        "mr": "आहे आणि या हे मध्ये तो ते ती होते आहेत की एक पण नाही केले त्या मी साठी करण्यासाठी असे",
        "ne": "छ र को मा हो ले यो पनि गर्न लाई छन् भने थियो एक हुन्छ तर गरेको बाट गर्ने छैन",
    },
}  # fmt: skip
_TABLES = {
    script: {language: frozenset(words.split()) for language, words in languages.items()}
    for script, languages in _WORDS.items()
}
_WORD = re.compile(r"[^\W\d_][\w\u0300-\u036f\u0900-\u097f]*")


def main_script(text: str) -> str | None:
    """First word of the Unicode names of most letters: LATIN, CYRILLIC, CJK, …; None without."""
    letters = Counter(c for c in text[:MAX_CHARS] if c.isalpha())
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        scripts[unicodedata.name(letter, "UNKNOWN").split(" ")[0]] += count
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * scripts.total():
        return "HIRAGANA"  # Japanese writes more Han characters than kana in places
    return scripts.most_common(1)[0][0] if scripts else None


def identify(text: str) -> str | None:
    """ISO 639-1 code of the language, or None."""
    script = main_script(text)
    if script is None or script in _OWN_SCRIPT:
        return _OWN_SCRIPT.get(script or "")
    words = Counter(_WORD.findall(text[:MAX_CHARS].lower()))
    hits = {
        language: sum(words[word] for word in common)
        for language, common in _TABLES.get(script, {}).items()
    }
    ranked = sorted(hits.items(), key=lambda item: -item[1])
    if not ranked or ranked[0][1] == 0 or ranked[0][1] == ranked[1][1]:
        return None
    return ranked[0][0]
