"""What a teacher is asked. Changing a word asks for everything anew: answers are kept by request.

The tasks are those of the paper's cold start (B.3.2); the words are ours, but for the sentence on
translation, which is the paper's.
"""

from __future__ import annotations

REWRITE = """\
Below are a question and the raw notes of somebody who solved it. Rewrite the notes as the natural \
inner monologue of one person at work: in the first person ("I", never "we"), first making sure \
what is asked, then working step by step in short paragraphs, and checking the result before \
settling on it.
Keep every step, number and formula as it is, wrong turns and their corrections included, and add \
none. Keep the language of the question. No headings, no lists, no markup, no tags.
Reply with the rewritten notes alone.

Question:
{question}

Notes:
{thinking}"""

TRANSLATE = """\
Translate the thinking process to the same language as the question. Leave numbers, formulas and \
names as they are, and leave nothing out.
Reply with the translated thinking process alone.

Question:
{question}

Thinking process:
{thinking}"""

SUMMARISE = """\
Below are a question and the private working of somebody who solved it. Write the solution that a \
reader is shown instead of the working.
- Follow the working: the same approach, the same results, no step that is not in it. Do not solve \
the question yourself, not even where the working is wrong.
- Write in the language of the question, in plain and concise sentences, the decisive steps in \
LaTeX where they are mathematics.
- Never mention that there was any working; begin with the solution itself.
- End with the final answer exactly as the working gives it, inside \\boxed{{}}.{code}

Question:
{question}

Working:
{thinking}

The answer it came to: {answer}"""

CODE = """
- Where the answer is a program, end with the whole program in one fenced code block instead of \
the box."""
