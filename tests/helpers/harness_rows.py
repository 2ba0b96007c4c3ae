"""Rows in the shapes of the harness's long-context tasks, made here: each says what its context and question are."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

from helpers.harness import WORDS

ROWS = 4
"""How many rows a maker makes: two to ask about, and two as examples."""
MARK = "\n\nQuestion: Which river?\nAnswer: The other one.\n\n"
"""Stands in most contexts, as it would between examples."""


class Row(NamedTuple):
    """A document of a task.

    Attributes:
        doc: Its fields, as the task's dataset has them.
        context: The text that is to be cut.
        question: What must be asked after it; empty where the task asks before it, or nothing of its own.
    """

    doc: dict[str, Any]
    context: str
    question: str = ""


class Family(NamedTuple):
    """Tasks whose rows have one shape.

    Attributes:
        tasks: Their names.
        folder: Where they are in the harness's folder of tasks.
        rows: Makes the rows of a task, by its name.
        place: What the splitter says where the context is; a part of it.
        read: Says of a document which a task has made itself what its context and question are, in place of `rows`.
        shots: Examples in front of each question, where it is not what the task says.
    """

    tasks: tuple[str, ...]
    folder: str
    rows: Callable[[str], list[Row]] | None
    place: str
    read: Callable[[dict[str, Any], str], Row] | None = None
    shots: int | None = None


def prose(number: int, words: int = 70) -> str:
    """Sentences, other ones for each number; a line for each."""
    draw = random.Random(number)
    lines = [" ".join(draw.choices(WORDS, k=9)) for _ in range(-(-words // 9))]
    return "\n".join(f"{line.capitalize()} in {number * 1000 + at}." for at, line in enumerate(lines))


def passage(number: int) -> str:
    """A text of two paragraphs, with a question and an answer that are not the task's between them."""
    return f"{prose(number)}{MARK}{prose(number + 100, 30)}"


def question(number: int) -> str:
    """A question that stands in no context."""
    return f"Who was {WORDS[number]} number {number + 7}?"


def each(make: Callable[[int], Row]) -> Callable[[str], list[Row]]:
    """Rows of a maker that knows of no task."""
    return lambda _: [make(number) for number in range(ROWS)]


def fields(context: str, asked: str = "question", **others: Any) -> Callable[[str], list[Row]]:
    """Rows whose context and question are fields of these names; `others` are the same in all rows."""

    def make(number: int) -> Row:
        text, ask = passage(number), question(number)
        return Row({context: text, asked: ask, **others}, text, ask)

    return each(make)


def without_question(rows: Callable[[str], list[Row]], tasks: Sequence[str] = ()) -> Callable[[str], list[Row]]:
    """The rows of tasks, all or those named, that ask nothing of their own after the context."""
    return lambda task: [row._replace(question="") if not tasks or task in tasks else row for row in rows(task)]


# Tasks that make their own rows


def cut_out(text: str, template: str, asked: str) -> Row:
    """The last context in a text that a template with `{context}` made; the question follows it."""
    before, after = template.split("{context}")
    start = text.rindex(before.rpartition("}")[2]) + len(before.rpartition("}")[2])
    end = text.rindex(after.partition("{")[0])
    ask = text[end:].strip() if asked == "all" else after.partition("{")[0].strip()
    return Row({}, text[start:end], ask)


def read_ruler(doc: dict[str, Any], task: str) -> Row:
    """RULER's documents by its own templates."""
    modules = {"niah": "niah_utils", "ruler": f"{task.split('_')[1]}_utils"}
    module = import_module(f"lm_eval.tasks.ruler.{modules[task.partition('_')[0]]}")
    template = module.CONFIG["variable_tracking"]["template"] if task == "ruler_vt" else module.TEMPLATE
    if task.startswith("niah") and "\nWhat is the special magic" in doc["input"]:
        template = template.replace("What are all", "What is")
    return cut_out(doc["input"], template.partition(" Answer:")[0], "all")._replace(doc=doc)


def read_own(doc: dict[str, Any], task: str) -> Row:
    """This package's documents."""
    asks = {"ape_keyvalue_test": 'Key: "{key}"', "ape_pocket_onehop_test": "{input}"}.get(task, "{question}")
    return Row(doc, doc["context"], asks.format(**doc))


def prepare_niah() -> ModuleType:
    """RULER's module that hides needles; it would make six million names of them, which takes a quarter of a minute."""
    import wonderwords

    class FewWords(wonderwords.RandomWord):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._categories = {**self._categories, "adjectives": self._categories["adjectives"][:20]}

    with mock.patch("wonderwords.RandomWord", FewWords):
        # Not `from lm_eval.tasks.ruler import ...`: the folder remembers a module that was forgotten.
        return import_module("lm_eval.tasks.ruler.prepare_niah")


def haystack(type_haystack: str) -> list[str] | str:
    """RULER's texts to hide needles in, without a download."""
    if type_haystack == "essay":
        return " ".join(prose(number) for number in range(40)).split()
    needle = "One of the special magic {type_needle_v} for {key} is: {value}."
    return needle if type_haystack == "needle" else "The grass is green. The sky is blue. The sun is yellow."


def question_answering(url: str) -> dict[str, Any]:
    """SQuAD's or HotpotQA's file as RULER downloads it."""
    docs = [prose(number, 27) for number in range(40)]
    if "hotpot" in url:
        context = [[f"Title {number}", [doc]] for number, doc in enumerate(docs)]
        return [  # type: ignore[return-value]
            {"question": f"Which {number}?", "answer": "none", "context": context[number % 30 : number % 30 + 3]}
            for number in range(500)
        ]
    asked = [
        {
            "context": doc,
            "qas": [
                {"question": f"Which {number} of {at}?", "is_impossible": False, "answers": [{"text": "none"}]}
                for at in range(13)
            ],
        }
        for number, doc in enumerate(docs)
    ]
    return {"data": [{"paragraphs": asked}]}


# Tasks whose prompts are in one field


def graphwalks(number: int) -> Row:
    """Edges of a graph, after an example with some."""
    draw = random.Random(number)
    edges = "\n".join(f"{draw.getrandbits(40):010x} -> {draw.getrandbits(40):010x}" for _ in range(30))
    ask = f"Perform a BFS from node {draw.getrandbits(40):010x} with depth {number + 1}."
    example = "The graph has the following edges:\nabcd -> efgh\nefgh -> abcd\n\nExample 1:\nOperation:\nNone.\n"
    prompt = f"{example}\nThe graph has the following edges:\n{edges}\n\n\nOperation:\n{ask}\n\nReturn nodes."
    return Row({"prompt": prompt, "answer_nodes": [edges[:10]], "problem_type": "bfs"}, edges, ask)


_LONGPROC = {
    "html_to_tsv": "[INPUT WEBPAGE]\n```html\n{context}\n```\n\n[TARGET INFORMATION]\nFind {question}",
    "path_traversal": "[EXAMPLE]\nOf one.\n\nNow find the route from A to B.\n\n\n[PROBLEM]\n{context}\n\nNow find"
    " the route from {question} based on the above.",
    "tom_tracking": "[EXAMPLE STORY1]\nOne.\n\n[EXAMPLE QUESTION1]\nWho?\n\n[PROBLEM]\nRead.\n\n[STORY]\n{context}\n\n"
    "[QUESTION]\n{question}\n\n[YOUR ANSWER]",
    "pseudo_to_code": "[TASK]:\nWrite.\n\n[PSEUDOCODE]:\n{context}\n\n[CODE]:",
    "countdown": "[RULES]\nNone.\n\n[EXAMPLES]\n{context}\n\n[Problem]\nNow, solve.\n\nNumbers: {question}\nTarget: 3",
    "travel_planning": "TASK:\nPlan.\n\nEXAMPLES:\n{context}\n\nYOUR TASK:\nNow, make a plan.\n\n{question}",
}


def longproc(task: str) -> list[Row]:
    """LongProc's prompts, of which these are the lines that matter."""
    template = _LONGPROC[task.removeprefix("longproc_").rpartition("_")[0]]
    rows = []
    for number in range(ROWS):
        text, ask = passage(number), question(number)
        prompt = "[TASK]\nDo it.\n\n" + template.format(context=text, question=ask)
        row = Row({"input_prompt": prompt, "reference_output": "none", "metadata": "{}"}, text, ask)
        rows.append(row._replace(question="" if "{question}" not in template else ask))
    return rows


def based(task: str) -> list[Row]:
    """Texts with the beginning of the answer on the last line."""
    rows = []
    for number in range(ROWS):
        text, key = passage(number), f"Number of {WORDS[number]}s"
        # The value is in the text, as all answers are.
        doc = {"doc_id": str(number), "key": key, "value": text.split()[5], "text": f" {text}\n\n{key}:\n"}
        rows.append(Row(doc, text, f"{key}:"))
    return rows


def one_line(task: str) -> list[Row]:
    """Such texts without a line break."""
    rows = []
    for number in range(ROWS):
        text, start = prose(number).replace("\n", " "), f"The {WORDS[number]} of number {number + 7} was"
        rows.append(Row({"question": start, "value": text.split()[5], "text": f"{text} {start}"}, text, start))
    return rows


def agieval(task: str) -> list[Row]:
    """Passage, question and choices in one field, in English and Chinese."""
    words = ("问题：", "选项：", "答案：从A到D, 我们应选择")
    chinese = task.endswith(("zh", "chinese"))
    asks, options, answer = words if chinese else ("Q: ", "Answer Choices: ", "A: Among A through D, the answer is")
    rows = []
    for number in range(ROWS):
        text, ask = f"{prose(number)}\n{asks}this is in the text.\n{prose(number + 50, 20)}", question(number)
        query = f"{text}{asks}{ask} {options}(A)one (B)two (C)three (D)four\n{answer}"
        rows.append(Row({"query": query, "choices": ["(A)", "(B)", "(C)", "(D)"], "gold": [1]}, text, ask))
    return rows


# Tasks with fields of their own


def scrolls(task: str) -> list[Row]:
    """SCROLLS' rows: the question, and QuALITY's choices, in front of the text."""
    summary, outputs = task in ("scrolls_govreport", "scrolls_summscreenfd"), "two"
    outputs = {"scrolls_contractnli": "Entailment", "scrolls_qasper": "Yes"}.get(task, "two")
    choices = "(A) one\n\n (B) two\n\n (C) three\n\n (D) four\n\n" if task == "scrolls_quality" else ""
    rows = []
    for number in range(ROWS):
        text, ask = passage(number), "" if summary else question(number)
        given = text if summary else f"{ask}\n\n{choices}{text}"
        rows.append(Row({"id": str(number), "pid": f"p{number}", "input": given, "output": outputs}, text, ask))
    return rows


def infinitebench(task: str) -> list[Row]:
    """InfiniteBench's rows, with questions in the forms from which some tasks take parts."""
    asks = {
        "infinitebench_math_find": ("The largest number of the list is:", "The largest number of the list is:"),
        "infinitebench_code_run": ("The value of func_7(12).", "func_7(12)"),
        "infinitebench_code_debug": ("", "Which funtion has deliberate error?"),
        "infinitebench_longdialogue_qa_en": ("", "Which character is most likely"),
        "infinitebench_longbook_sum_en": ("", ""),
    }
    rows = []
    for number in range(ROWS):
        given, ask = asks.get(task, (question(number), question(number)))
        doc = {"id": number, "input": given, "answer": ["two"], "options": ["one", "two", "three", "four"]}
        rows.append(Row({**doc, "context": passage(number)}, passage(number), ask))
    return rows


def race(number: int) -> Row:
    """An article with questions, all but the last answered."""
    problems = [
        {"question": f"Is {at} so?", "answer": "A", "options": ["one", "two", "three", "four"]} for at in (1, 2)
    ]
    problems.append({**problems[0], "question": question(number)})
    return Row({"article": passage(number), "problems": str(problems)}, passage(number), question(number))


def coqa(number: int, nested: bool = True) -> Row:
    """A story shorter than the questions about it together."""
    asked = [f"Is it true of the {word} that all of what is said there is so in every way?" for word in WORDS]
    asked.append(question(number))
    story = prose(number)
    answers = {"input_text": ["yes", *["no"] * len(WORDS)]}
    doc = {"story": story, "questions": {"input_text": asked} if nested else asked, "answers": answers}
    return Row({**doc, "additional_answers": {"0": answers}} if nested else doc, story, question(number))


def drop(number: int) -> Row:
    """A passage with an answer of one span, as DROP writes it."""
    answer = {"number": "", "date": {"day": "", "month": "", "year": ""}, "spans": [passage(number).split()[3]]}
    others = {name: [value] for name, value in answer.items()}
    doc = {"passage": passage(number), "question": question(number), "query_id": str(number)}
    return Row({**doc, "answer": answer, "validated_answers": others}, passage(number), question(number))


def multirc(number: int) -> Row:
    """A paragraph, a question and one answer to judge."""
    doc = {"paragraph": passage(number), "question": question(number), "answer": f"An answer of {number}", "label": 1}
    return Row({**doc, "idx": {"paragraph": number, "question": 0, "answer": 0}}, passage(number), question(number))


def record(number: int) -> Row:
    """News with highlights, which the task puts in a list below it."""
    text, highlights = prose(number), [f"First of {number} is so", f"Second of {number} is too"]
    doc = {"passage": "\n@highlight\n".join([text, *highlights]), "query": f"All {number} know @placeholder"}
    names = text.split()[2:5]
    doc |= {"entities": names, "answers": names[:1], "idx": {"passage": number, "query": 0}}
    return Row(doc, text, highlights[1])


def record_t5(number: int) -> Row:
    """The same, whose passage stands at the end, with its highlights as sentences."""
    row = record(number)
    text = row.doc["passage"].replace(".\n@highlight\n", ". ").replace("\n@highlight\n", ". ")
    return row._replace(context=text, question="")


def musr(number: int) -> Row:
    """A narrative, whose choices are a list written as text."""
    doc = {"narrative": passage(number), "question": question(number), "choices": "['one', 'two']"}
    return Row({**doc, "answer_index": 1, "answer_choice": "two"}, passage(number), question(number))


def qasper(number: int) -> Row:
    """A paper's abstract, with an answer in words and one of yes or no."""
    blanks = {"unanswerable": False, "extractive_spans": [], "yes_no": None, "free_form_answer": ""}
    answers = [{"answer": [{**blanks, "yes_no": True}, {**blanks, "free_form_answer": "Two of them."}]}]
    doc = {"title": f"On {WORDS[number]}", "abstract": passage(number), "full_text": {"paragraphs": [[prose(number)]]}}
    return Row({**doc, "qas": {"question": [question(number)], "answers": answers}}, passage(number), question(number))


def pubmedqa(number: int) -> Row:
    """An abstract as a list of paragraphs."""
    parts = [prose(number), prose(number + 10), prose(number + 20)]
    doc = {"QUESTION": question(number), "CONTEXTS": parts, "MESHES": [WORDS[0]], "LONG_ANSWER": "x" * 999}
    return Row({**doc, "final_decision": "yes"}, "\n".join(parts), question(number))


def jsquad(number: int) -> Row:
    """A title and a passage in the field `context`, of which the task shows the passage."""
    doc = {"title": WORDS[number], "context": f"{WORDS[number]} [SEP] {passage(number)}", "question": question(number)}
    return Row({**doc, "answers": {"text": ["two"]}}, passage(number), question(number))


def jaqket(number: int) -> Row:
    """Texts of several search results."""
    parts = [prose(number), prose(number + 10), prose(number + 20)]
    doc = {"ctxs": {"title": WORDS[:3], "text": parts}, "question": question(number), "answers": {"text": ["two"]}}
    return Row(doc, "\n".join(parts), question(number))


def jfinqa(number: int) -> Row:
    """Paragraphs around a table."""
    before, after = [prose(number, 20), prose(number + 10, 20)], [prose(number + 20, 40)]
    table = "| year | sum |\n| --- | --- |\n| 1 | 2 |"
    doc = {"pre_text": before, "table_headers": ["year", "sum"], "table_rows": [["1", "2"]], "post_text": after}
    doc |= {"question": question(number), "answer": "2"}
    return Row(doc, "\n\n".join(["\n".join(before), table, after[0]]), question(number))


def noticia(number: int) -> Row:
    """News below its headline."""
    text = passage(number)
    return Row({"web_headline": f"{text.split('.')[0]}.", "web_text": text, "summary": "two"}, text)


def norquad(number: int) -> Row:
    """A text whose first line is its title, in one field."""
    doc = {
        "context": f"On {WORDS[number]}\n{passage(number)}",
        "question": question(number),
        "answers": {"text": ["two"]},
    }
    return Row(doc, passage(number), question(number))


def mimic(number: int) -> Row:
    """Findings and impressions in one field."""
    text = f"FINDINGS: {prose(number)}"
    return Row(
        {"extractive_notes_summ": f"{text}     IMPRESSION: None.", "summary": "two"}, text, "Summarize the findings."
    )


ANSWERS = {"id": "1", "answers": {"text": ["two"], "answer_start": [0]}}
CHOICES = {f"mc_answer{number}": f"answer {number}" for number in (1, 2, 3, 4)}
FOUR = ["one", "two", "three", "four"]
LONGBENCH = """2wikimqa dureader gov_report hotpotqa lcc lsht multi_news multifieldqa_en multifieldqa_zh musique
    narrativeqa passage_count passage_retrieval_en passage_retrieval_zh qasper qmsum repobench-p samsum trec
    triviaqa vcsum 2wikimqa_e gov_report_e hotpotqa_e lcc_e multi_news_e multifieldqa_en_e passage_count_e
    passage_retrieval_en_e qasper_e repobench-p_e samsum_e trec_e triviaqa_e""".split()
_UNASKED = [
    f"longbench_{name}{e}" for name in "gov_report multi_news vcsum passage_count lcc".split() for e in ("", "_e")
]
LONGBENCH_V2 = """academic_multi academic_single agent_history code detective dialogue_history event_order fin_multi
    fin_single govt_multi govt_single graph legal_multi legal_single lit_single many_shot news_multi table translate
    user_guide""".split()
INFINITEBENCH = """code_debug code_run kv_retrieval longbook_choice_en longbook_qa_chn longbook_qa_en longbook_sum_en
    longdialogue_qa_en math_find number_string passkey""".split()
LIBRA = """librusec_history librusec_mhqa long_context_multiq matreshka_names matreshka_yes_no passkey
    passkey_with_librusec ru_2wikimultihopqa ru_babilong_qa1 ru_babilong_qa2 ru_babilong_qa3 ru_babilong_qa4
    ru_babilong_qa5 ru_gsm100 ru_qasper ru_quality ru_sci_abstract_retrieval ru_sci_passage_count""".split()
LONGPROC = """countdown_0.5k countdown_2k countdown_8k html_to_tsv_0.5k html_to_tsv_2k html_to_tsv_8k
    path_traversal_0.5k path_traversal_2k path_traversal_8k pseudo_to_code_0.5k pseudo_to_code_2k tom_tracking_0.5k
    tom_tracking_2k tom_tracking_8k travel_planning_2k travel_planning_8k""".split()
SCROLLS = "contractnli govreport narrativeqa qasper qmsum quality summscreenfd".split()
RULER = """niah_single_1 niah_single_2 niah_single_3 niah_multikey_1 niah_multikey_2 niah_multikey_3 niah_multivalue
    niah_multiquery ruler_vt ruler_cwe ruler_fwe ruler_qa_squad ruler_qa_hotpot""".split()
AGIEVAL = "gaokao_chinese gaokao_english logiqa_en logiqa_zh lsat_ar lsat_lr lsat_rc sat_en".split()


def _named(prefix: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{prefix}{name}" for name in names)


_TABLE = "(contexts.yaml)"
_longbench = without_question(fields("context", answers=["two"], all_classes=["two"]), _UNASKED)
_boolq = fields("passage", label=1)

FAMILIES = {
    "ruler": Family(tuple(RULER), "ruler", None, _TABLE, read_ruler),
    "babilong": Family(
        _named("babilong_qa", [str(n + 1) for n in range(20)]),
        "babilong",
        fields("input", target="two"),
        "field 'input'",
    ),
    "longbench": Family(_named("longbench_", LONGBENCH), "longbench", _longbench, "field 'context'"),
    "longbench2": Family(
        _named("longbench2_", LONGBENCH_V2),
        "longbench2",
        fields("context", choices=FOUR, answer="B"),
        "field 'context'",
    ),
    "infinitebench": Family(_named("infinitebench_", INFINITEBENCH), "infinitebench", infinitebench, "field 'context'"),
    "graphwalks": Family(("graphwalks_128k", "graphwalks_1M"), "graphwalks", each(graphwalks), _TABLE),
    "libra": Family(
        tuple(LIBRA), "libra", fields("context", "input", positive_outputs=["two"], length="4p"), "field 'context'"
    ),
    "longproc": Family(_named("longproc_", LONGPROC), "longproc", longproc, _TABLE),
    "scrolls": Family(_named("scrolls_", SCROLLS), "scrolls", scrolls, "field '"),
    "race": Family(("race",), "race", each(race), "field 'article'"),
    "squad_completion": Family(("squad_completion",), "squad_completion", based, _TABLE),
    "squad_completion of one line": Family(("squad_completion",), "squad_completion", one_line, _TABLE),
    "swde": Family(("swde",), "swde", based, _TABLE),
    "fda": Family(("fda",), "fda", based, _TABLE),
    "agieval": Family(_named("agieval_", AGIEVAL), "agieval", agieval, _TABLE),
    "squadv2": Family(("squadv2",), "squadv2", fields("context", title="On", **ANSWERS), "field 'context'"),
    "coqa": Family(("coqa",), "coqa", each(coqa), _TABLE),
    "coqcat": Family(("coqcat",), "catalan_bench", each(partial(coqa, nested=False)), _TABLE),
    "drop": Family(("drop",), "drop", each(drop), "field 'passage'", shots=1),
    "boolq": Family(
        ("boolq", "boolq-seq2seq", "super_glue-boolq-t5-prompt"), "super_glue/boolq", _boolq, "field 'passage'", shots=1
    ),
    "french boolq": Family(("french_bench_boolqa",), "french_bench", _boolq, "field 'passage'"),
    "korean boolq": Family(("kobest_boolq",), "kobest", fields("paragraph", label=1), "field 'paragraph'"),
    "multirc": Family(("multirc",), "super_glue/multirc", each(multirc), "field 'paragraph'", shots=1),
    "multirc of t5": Family(
        ("super_glue-multirc-t5-prompt",), "super_glue/multirc", without_question(each(multirc)), _TABLE
    ),
    "record": Family(("record",), "super_glue/record", each(record), _TABLE, shots=1),
    "record of t5": Family(("super_glue-record-t5-prompt",), "super_glue/record", each(record_t5), _TABLE),
    "musr": Family(
        _named("leaderboard_musr_", ["murder_mysteries", "object_placements", "team_allocation"]),
        "leaderboard/musr",
        each(musr),
        "field 'narrative'",
    ),
    "qasper": Family(("qasper_bool", "qasper_freeform"), "qasper", each(qasper), "field 'abstract'"),
    "cnn_dailymail": Family(
        ("cnn_dailymail_abisee",),
        "cnn_dailymail",
        without_question(fields("article", "id", highlights="two")),
        "field 'article'",
    ),
    "belebele": Family(
        ("belebele_eng_Latn", "belebele_zho_Hans"),
        "belebele",
        fields("flores_passage", **CHOICES, correct_answer_num="2"),
        "field 'flores_passage'",
    ),
    "xquad": Family(("xquad_en", "xquad_zh"), "xquad", fields("context", **ANSWERS), "field 'context'"),
    "tydiqa": Family(
        ("tydiqa_goldp_en",),
        "tydiqa",
        fields("context", **{**ANSWERS, "id": "english-1", "title": "On"}),
        "field 'context'",
    ),
    "mlqa": Family(("mlqa_en_en",), "mlqa", fields("context", **ANSWERS), "field 'context'"),
    "pubmedqa": Family(("pubmedqa",), "pubmedqa", each(pubmedqa), "list 'CONTEXTS'"),
    "jsquad": Family(("ja_leaderboard_jsquad",), "japanese_leaderboard", each(jsquad), _TABLE),
    "jaqket": Family(("ja_leaderboard_jaqket_v2",), "japanese_leaderboard", each(jaqket), "list 'ctxs.text'"),
    "jfinqa": Family(_named("jfinqa_", ["consistency", "numerical", "temporal"]), "jfinqa", each(jfinqa), _TABLE),
    "noticia": Family(("noticia",), "noticia", each(noticia), _TABLE),
    "norquad": Family(_named("norquad_p", list("01234")), "noreval/norquad", each(norquad), "field 'passage'"),
    "babi": Family(("babi",), "babi", fields("passage", answer="two"), "field 'passage'"),
    "logiqa": Family(("logiqa",), "logiqa", fields("context", options=FOUR, label="b"), "field 'context'"),
    "logiqa2": Family(("logiqa2",), "logiqa2", fields("text", options=FOUR, answer=1), "field 'text'"),
    "eus_reading": Family(
        ("eus_reading",), "eus_reading", fields("context", candidates=FOUR, answer=1), "field 'context'"
    ),
    "catalanqa": Family(
        ("catalanqa",), "catalan_bench", fields("context", answers=[{"text": "two"}]), "field 'context'"
    ),
    "qa4mre": Family(
        ("qa4mre_2011",),
        "qa4mre",
        fields("document_str", "question_str", answer_options={"answer_str": FOUR}, correct_answer_id="2"),
        "field 'document_str'",
    ),
    "sciq": Family(
        ("sciq",),
        "sciq",
        fields("support", **{f"distractor{number}": f"No {number}" for number in (1, 2, 3)}, correct_answer="Yes"),
        "field 'support'",
    ),
    "click": Family(
        ("click_lang_text",),
        "click",
        fields("paragraph", choices=FOUR, answer="two", id="CSAT_korean_22_1"),
        "field 'paragraph'",
    ),
    "mimic_repsum": Family(("mimic_repsum",), "mimic_repsum", each(mimic), _TABLE),
    "norsumm": Family(
        _named("norsumm_", [f"{written}_p{n}" for written in ("nno", "nob") for n in range(6)]),
        "noreval/norsumm",
        without_question(fields("article", summaries=["two"])),
        _TABLE,
    ),
    "own": Family(
        ("ape_pocket_onehop_test", "ape_keyvalue_test", "ape_needle_test"), "", None, "field 'context'", read_own
    ),
}
