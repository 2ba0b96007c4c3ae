"use strict";
(() => {
  const PAGE = 50;
  const status = document.getElementById("status");

  // Only ever text: nothing that a model or a data set said becomes markup.
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined && text !== null) element.textContent = text;
    return element;
  };

  // Sortable tables

  const value = (cell) => {
    const order = cell.dataset.order;
    const number = Number(order);
    return order === "" || order === undefined ? null : Number.isNaN(number) ? order : number;
  };

  const compare = (a, b, sign) => {
    // What is missing comes last in either direction.
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b));
  };

  const sortBy = (table, header, column) => {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows];
    rows.sort((a, b) => compare(value(a.cells[column]), value(b.cells[column]), ascending ? 1 : -1));
    body.append(...rows);
    status.textContent = `Sorted by ${header.textContent}, ${ascending ? "ascending" : "descending"}.`;
  };

  document.querySelectorAll("table.sortable").forEach((table) => {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      header.querySelector("button").addEventListener("click", () => sortBy(table, header, column));
    });
  });

  document.querySelectorAll(".task-filter").forEach((select) => {
    select.addEventListener("change", () => {
      const rows = select.closest(".board").querySelectorAll("tr[data-task]");
      rows.forEach((row) => { row.hidden = select.value !== "" && row.dataset.task !== select.value; });
    });
  });

  // Commands

  document.querySelectorAll(".copy").forEach((button) => {
    if (!navigator.clipboard) { button.remove(); return; }
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  });

  // Samples: thousands of them, so that only those looked at are drawn.

  const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
  const prompts = (run) => (run.kl || []).filter((prompt) => prompt.nats.length);
  const meanKl = (run) => (prompts(run).length ? mean(prompts(run).map((prompt) => mean(prompt.nats))) : null);
  const LEVELS = [0.01, 0.1, 0.5, 1, 2];
  const level = (nats) => LEVELS.filter((least) => nats >= least).length;
  const times100 = (score) => (score === null ? "none" : (100 * score).toFixed(1));

  class Browser {
    constructor(root) {
      this.root = root;
      this.data = JSON.parse(root.querySelector(".data").textContent);
      this.rows = new Map(this.data.rows.map((row) => [row.label, row]));
      this.form = root.querySelector("form");
      this.list = root.querySelector(".list");
      this.more = root.querySelector(".more");
      this.count = root.querySelector(".count");
      this.data.samples.forEach((sample) => {
        const runs = Object.values(sample.runs);
        const scores = runs.map((run) => run.score).filter((score) => score !== null);
        sample.spread = scores.length ? Math.max(...scores) - Math.min(...scores) : 0;
        sample.said = new Set(runs.map((run) => run.prediction)).size;
        sample.kl = Math.max(0, ...runs.map(meanKl).filter((kl) => kl !== null));
        sample.text = [sample.prompt, sample.target, ...runs.map((run) => run.prediction)].join("\n").toLowerCase();
      });
      let waiting;
      this.form.addEventListener("input", () => {
        clearTimeout(waiting);
        waiting = setTimeout(() => this.filter(), 120);
      });
      this.form.addEventListener("submit", (event) => event.preventDefault());
      this.more.addEventListener("click", () => this.draw());
      root.hidden = false;
      this.filter();
    }

    field(name) {
      const field = this.form.elements.namedItem(name);
      return field ? field.value : "";
    }

    filter() {
      const [task, which, order] = ["task", "which", "order"].map((name) => this.field(name));
      const words = this.field("text").toLowerCase().split(/\s+/).filter(Boolean);
      const kept = (sample) => (!task || sample.task === task)
        && (which !== "scores" || sample.spread > 0)
        && (which !== "predictions" || sample.said > 1)
        && words.every((word) => sample.text.includes(word));
      this.shown = this.data.samples.filter(kept);
      const key = { disagreement: "spread", kl: "kl", length: "length" }[order];
      if (key) this.shown.sort((a, b) => b[key] - a[key]);
      this.list.replaceChildren();
      this.draw();
    }

    draw() {
      const start = this.list.children.length;
      const next = this.shown.slice(start, start + PAGE);
      this.list.append(...next.map((sample) => this.item(sample)));
      const drawn = start + next.length;
      this.count.textContent = `${this.shown.length} of ${this.data.samples.length} samples`
        + (drawn < this.shown.length ? `, the first ${drawn} shown` : "");
      this.more.hidden = drawn >= this.shown.length;
    }

    mark(label) {
      const row = this.rows.get(label);
      const glyph = make("span", "glyph", row.glyph);
      glyph.setAttribute("aria-hidden", "true");
      if (row.color !== "#1b1c21") glyph.style.color = row.color;
      return glyph;
    }

    item(sample) {
      const details = make("details");
      const summary = make("summary");
      summary.append(make("span", "doc", `${sample.task} #${sample.doc}`));
      const base = sample.runs[this.data.baseline];
      for (const [label, run] of Object.entries(sample.runs)) {
        const differs = base && run.score !== base.score;
        const chip = make("span", differs ? "chip off" : "chip");
        chip.append(this.mark(label), ` ${label} ${times100(run.score)}${differs ? " ≠" : ""}`);
        summary.append(chip);
      }
      details.append(summary);
      details.addEventListener("toggle", () => {
        if (!details.open || details.children.length > 1) return;
        details.append(this.opened(sample));
        // The question stands at the prompt's end.
        const prompt = details.querySelector("blockquote");
        prompt.scrollTop = prompt.scrollHeight;
      });
      const item = make("li");
      item.append(details);
      return item;
    }

    opened(sample) {
      const box = make("div", "opened");
      box.append(make("p", "quiet", `End of a prompt of ${sample.length} ${this.data.unit}:`));
      const prompt = make("blockquote", "", sample.prompt);
      prompt.tabIndex = 0;
      const answer = make("p", "answer");
      answer.append(make("strong", "", "Answer"), make("span", "said", sample.target));
      box.append(prompt, answer);
      for (const [label, run] of Object.entries(sample.runs)) box.append(this.run(sample, label, run));
      return box;
    }

    run(sample, label, run) {
      const box = make("div", "run");
      const head = make("div", "head");
      const name = make("b");
      name.append(this.mark(label), ` ${label}`);
      const kl = meanKl(run);
      const facts = [`${this.data.tasks[sample.task].metric} ${times100(run.score)}`];
      if (run.chunks) facts.push(`${run.chunks} chunks`);
      if (kl !== null) facts.push(`mean KL ${kl.toPrecision(3)} nats`);
      head.append(name, make("span", "said", run.prediction || "(nothing)"), make("span", "quiet", facts.join(" · ")));
      box.append(head);
      prompts(run).forEach((part) => box.append(this.strip(part)));
      return box;
    }

    strip(part) {
      const strip = make("ol", "strip");
      strip.setAttribute("aria-label", "KL from the sequential model at each of its tokens, in nats");
      part.nats.forEach((nats, index) => {
        const cell = make("li", `h${level(nats)}`);
        const token = part.tokens[index];
        if (token !== undefined) cell.append(make("span", "token", JSON.stringify(token).slice(1, -1).replace(/^ | $/g, "␣")));
        cell.append(make("span", "", nats < 0.0005 ? "0.000" : nats.toFixed(nats < 10 ? 3 : 1)));
        strip.append(cell);
      });
      return strip;
    }
  }

  document.querySelectorAll(".browser").forEach((root) => new Browser(root));
})();
