"""The 21 datasets of LongBench: prompts, generation lengths and metrics of the official code.

Prompts and lengths are those of `config/dataset2prompt.json` and `config/dataset2maxlen.json` in
https://github.com/THUDM/LongBench, byte for byte, spelling included. Numbers of rows: LongBench's
paper (https://arxiv.org/abs/2308.14508), Tables 1 and 8.
"""

from typing import Literal, NamedTuple

Category = Literal["single", "multi", "summarization", "fewshot", "synthetic", "code"]
Metric = Literal[
    "qa_f1",
    "qa_f1_zh",
    "rouge_l",
    "rouge_l_zh",
    "classification",
    "retrieval",
    "retrieval_zh",
    "count",
    "code_similarity",
]


class LongBenchDataset(NamedTuple):
    """What the official code knows about one dataset.

    Attributes:
        category: The kind of task; groups of tasks are made of it.
        metric: The function in `metrics` that gives the score.
        max_gen_toks: Most tokens to generate.
        prompt: The prompt, with `{context}` exactly once and `{input}` at most once.
        language: `en` or `zh`; code counts as `en`, as in the official files.
        rows: Number of rows in LongBench.
        rows_e: Number of rows in LongBench-E; None if the dataset is not in it.
        until: Strings that end the generation.
        first_line: Whether only the prediction's first line counts.
    """

    category: Category
    metric: Metric
    max_gen_toks: int
    prompt: str
    language: Literal["en", "zh"] = "en"
    rows: int = 200
    rows_e: int | None = None
    until: tuple[str, ...] = ()
    first_line: bool = False


_PASSAGES_PROMPT = (
    "Answer the question based on the given passages. Only give me the answer and do "
    "not output any other words.\n\n"
    "The following are given passages.\n"
    "{context}\n\n"
    "Answer the question based on the given passages. Only give me the answer and do "
    "not output any other words.\n\n"
    "Question: {input}\n"
    "Answer:"
)

DATASETS: dict[str, LongBenchDataset] = {
    "narrativeqa": LongBenchDataset(
        category="single",
        metric="qa_f1",
        max_gen_toks=128,
        prompt=(
            "You are given a story, which can be either a novel or a movie script, and "
            "a question. Answer the question asconcisely as you can, using a single "
            "phrase if possible. Do not provide any explanation.\n\n"
            "Story: {context}\n\n"
            "Now, answer the question based on the story asconcisely as you can, using "
            "a single phrase if possible. Do not provide any explanation.\n\n"
            "Question: {input}\n\n"
            "Answer:"
        ),
    ),
    "qasper": LongBenchDataset(
        category="single",
        metric="qa_f1",
        max_gen_toks=128,
        prompt=(
            "You are given a scientific article and a question. Answer the "
            "question as concisely as you can, using a single phrase or "
            "sentence if possible. If the question cannot be answered based on "
            'the information in the article, write "unanswerable". If the '
            'question is a yes/no question, answer "yes", "no", or '
            '"unanswerable". Do not provide any explanation.\n\n'
            "Article: {context}\n\n"
            " Answer the question based on the above article as concisely as "
            "you can, using a single phrase or sentence if possible. If the "
            "question cannot be answered based on the information in the "
            'article, write "unanswerable". If the question is a yes/no '
            'question, answer "yes", "no", or "unanswerable". Do not provide any '
            "explanation.\n\n"
            "Question: {input}\n\n"
            "Answer:"
        ),
        rows_e=224,
    ),
    "multifieldqa_en": LongBenchDataset(
        category="single",
        metric="qa_f1",
        max_gen_toks=64,
        prompt=(
            "Read the following text and answer briefly.\n\n"
            "{context}\n\n"
            "Now, answer the following question based on the above text, only give me "
            "the answer and do not output any other words.\n\n"
            "Question: {input}\n"
            "Answer:"
        ),
        rows=150,
        rows_e=150,
    ),
    "multifieldqa_zh": LongBenchDataset(
        category="single",
        metric="qa_f1_zh",
        max_gen_toks=64,
        prompt=(
            "阅读以下文字并用中文简短回答：\n\n"
            "{context}\n\n"
            "现在请基于上面的文章回答下面的问题，只告诉我答案，不要输出任何其他字词。\n\n"
            "问题：{input}\n"
            "回答："
        ),
        language="zh",
    ),
    "hotpotqa": LongBenchDataset(
        category="multi",
        metric="qa_f1",
        max_gen_toks=32,
        prompt=_PASSAGES_PROMPT,
        rows_e=300,
    ),
    "2wikimqa": LongBenchDataset(
        category="multi",
        metric="qa_f1",
        max_gen_toks=32,
        prompt=_PASSAGES_PROMPT,
        rows_e=300,
    ),
    "musique": LongBenchDataset(
        category="multi",
        metric="qa_f1",
        max_gen_toks=32,
        prompt=_PASSAGES_PROMPT,
    ),
    "dureader": LongBenchDataset(
        category="multi",
        metric="rouge_l_zh",
        max_gen_toks=128,
        prompt=(
            "请基于给定的文章回答下述问题。\n\n"
            "文章：{context}\n\n"
            "请基于上述文章回答下面的问题。\n\n"
            "问题：{input}\n"
            "回答："
        ),
        language="zh",
    ),
    "gov_report": LongBenchDataset(
        category="summarization",
        metric="rouge_l",
        max_gen_toks=512,
        prompt=(
            "You are given a report by a government agency. Write a one-page summary "
            "of the report.\n\n"
            "Report:\n"
            "{context}\n\n"
            "Now, write a one-page summary of the report.\n\n"
            "Summary:"
        ),
        rows_e=300,
    ),
    "qmsum": LongBenchDataset(
        category="summarization",
        metric="rouge_l",
        max_gen_toks=512,
        prompt=(
            "You are given a meeting transcript and a query containing a question or "
            "instruction. Answer the query in one or more sentences.\n\n"
            "Transcript:\n"
            "{context}\n\n"
            "Now, answer the query based on the above meeting transcript in one or "
            "more sentences.\n\n"
            "Query: {input}\n"
            "Answer:"
        ),
    ),
    "multi_news": LongBenchDataset(
        category="summarization",
        metric="rouge_l",
        max_gen_toks=512,
        prompt=(
            "You are given several news passages. Write a one-page summary of all "
            "news. \n\n"
            "News:\n"
            "{context}\n\n"
            "Now, write a one-page summary of all the news.\n\n"
            "Summary:"
        ),
        rows_e=294,
    ),
    "vcsum": LongBenchDataset(
        category="summarization",
        metric="rouge_l_zh",
        max_gen_toks=512,
        prompt="下面有一段会议记录，请你阅读后，写一段总结，总结会议的内容。\n会议记录：\n{context}\n\n会议总结：",
        language="zh",
    ),
    "trec": LongBenchDataset(
        category="fewshot",
        metric="classification",
        max_gen_toks=64,
        prompt=(
            "Please determine the type of the question below. Here are some examples "
            "of questions.\n\n"
            "{context}\n"
            "{input}"
        ),
        rows_e=300,
        first_line=True,
    ),
    "triviaqa": LongBenchDataset(
        category="fewshot",
        metric="qa_f1",
        max_gen_toks=32,
        prompt=(
            "Answer the question based on the given passage. Only give me the answer "
            "and do not output any other words. The following are some examples.\n\n"
            "{context}\n\n"
            "{input}"
        ),
        rows_e=300,
        first_line=True,
    ),
    "samsum": LongBenchDataset(
        category="fewshot",
        metric="rouge_l",
        max_gen_toks=128,
        prompt=(
            "Summarize the dialogue into a few short sentences. The following are some "
            "examples.\n\n"
            "{context}\n\n"
            "{input}"
        ),
        rows_e=300,
        until=("\n",),
        first_line=True,
    ),
    "lsht": LongBenchDataset(
        category="fewshot",
        metric="classification",
        max_gen_toks=64,
        prompt="请判断给定新闻的类别，下面是一些例子。\n\n{context}\n{input}",
        language="zh",
        first_line=True,
    ),
    "passage_count": LongBenchDataset(
        category="synthetic",
        metric="count",
        max_gen_toks=32,
        prompt=(
            "There are some paragraphs below sourced from Wikipedia. Some of them may "
            "be duplicates. Please carefully read these paragraphs and determine how "
            "many unique paragraphs there are after removing duplicates. In other "
            "words, how many non-repeating paragraphs are there in total?\n\n"
            "{context}\n\n"
            "Please enter the final count of unique paragraphs after removing "
            "duplicates. The output format should only contain the number, such as 1, "
            "2, 3, and so on.\n\n"
            "The final answer is: "
        ),
        rows_e=300,
    ),
    "passage_retrieval_en": LongBenchDataset(
        category="synthetic",
        metric="retrieval",
        max_gen_toks=32,
        prompt=(
            "Here are 30 paragraphs from Wikipedia, along with an abstract. Please "
            "determine which paragraph the abstract is from.\n\n"
            "{context}\n\n"
            "The following is an abstract.\n\n"
            "{input}\n\n"
            "Please enter the number of the paragraph that the abstract is from. "
            'The answer format must be like "Paragraph 1", "Paragraph 2", etc.\n\n'
            "The answer is: "
        ),
        rows_e=300,
    ),
    "passage_retrieval_zh": LongBenchDataset(
        category="synthetic",
        metric="retrieval_zh",
        max_gen_toks=32,
        prompt=(
            "以下是若干段落文字，以及其中一个段落的摘要。请确定给定的摘要出自哪一段。\n\n"
            "{context}\n\n"
            "下面是一个摘要\n\n"
            "{input}\n\n"
            '请输入摘要所属段落的编号。答案格式必须是"段落1"，"段落2"等格式\n\n'
            "答案是："
        ),
        language="zh",
    ),
    "lcc": LongBenchDataset(
        category="code",
        metric="code_similarity",
        max_gen_toks=64,
        prompt="Please complete the code given below. \n{context}Next line of code:\n",
        rows=500,
        rows_e=300,
    ),
    "repobench-p": LongBenchDataset(
        category="code",
        metric="code_similarity",
        max_gen_toks=64,
        prompt="Please complete the code given below. \n{context}{input}Next line of code:\n",
        rows=500,
        rows_e=300,
    ),
}
"""The datasets by name, in the order of LongBench's paper."""
