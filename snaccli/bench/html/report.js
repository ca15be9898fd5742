"use strict";
// Sorts, opens and plays. Without it everything is there to read, but in one order.
(() => {
  document.documentElement.classList.add("script");
  const codecs = [...document.querySelectorAll(".codec")];
  const details = new Map([...document.querySelectorAll("tr.detail")].map((row) => [row.dataset.n, row]));

  for (const row of details.values()) {
    row.hidden = true;
    row.querySelector("details").open = true;
  }

  const recordings = (table) => [...table.tBodies[0].rows].filter((row) => !row.classList.contains("detail"));

  // Puts each excerpt under its recording's row in the table that is shown.
  const settle = (table) => {
    for (const row of recordings(table)) {
      const detail = details.get(row.dataset.n);
      if (detail) row.after(detail);
    }
  };

  const setOpen = (number, open) => {
    details.get(number).hidden = !open;
    for (const button of document.querySelectorAll(`.open[data-n="${number}"]`)) {
      button.setAttribute("aria-expanded", String(open));
    }
    if (!open) details.get(number).querySelectorAll("audio").forEach((player) => player.pause());
  };

  const value = (row, column) => {
    const text = row.cells[column] ? row.cells[column].textContent : "";
    return column === 0 ? text : Number.parseFloat(text);
  };

  const byName = new Intl.Collator(undefined, { numeric: true });

  // What has no figure stays at the end whichever way is sorted.
  const compare = (one, other, sign) => {
    if (typeof one === "string") return sign * byName.compare(one, other);
    const missing = Number.isNaN(one) - Number.isNaN(other);
    return missing || (Number.isNaN(one) ? 0 : sign * (one - other));
  };

  const sort = (table, heading) => {
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const keyed = recordings(table).map((row) => [value(row, heading.cellIndex), row]);
    keyed.sort((one, other) => compare(one[0], other[0], ascending ? 1 : -1));
    const own = [...details.values()].some((row) => table.contains(row));
    table.tBodies[0].append(...keyed.map(([, row]) => row));
    if (own) settle(table);
  };

  const button = (text, action) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", action);
    return made;
  };

  for (const table of document.querySelectorAll("table.files")) {
    for (const heading of table.tHead.rows[0].cells) {
      const label = heading.querySelector(".by");
      label.replaceWith(button(label.textContent, () => sort(table, heading)));
    }
    for (const row of recordings(table)) {
      const number = row.dataset.n;
      if (!details.has(number)) continue;
      const opener = button(row.cells[0].textContent, () => setOpen(number, details.get(number).hidden));
      opener.className = "open";
      opener.dataset.n = number;
      opener.setAttribute("aria-expanded", "false");
      opener.setAttribute("aria-controls", details.get(number).id);
      row.cells[0].replaceChildren(opener);
    }
  }

  const show = (number) => {
    codecs.forEach((codec) => { codec.hidden = codec.dataset.codec !== number; });
    settle(codecs.find((codec) => !codec.hidden).querySelector("table"));
  };
  const choices = [...document.querySelectorAll("input[name=codec]")];
  for (const choice of choices) choice.addEventListener("change", () => show(choice.value));
  show((choices.find((choice) => choice.checked) || { value: "0" }).value);

  for (const link of document.querySelectorAll(".worst a")) {
    link.addEventListener("click", () => {
      if (choices.length) choices[0].checked = true;
      show("0");
      const number = link.getAttribute("href").slice(2);
      if (details.has(number)) setOpen(number, true);
    });
  }

  // The address of a row opens its excerpt.
  const asked = location.hash.slice(2);
  if (location.hash.startsWith("#r") && details.has(asked)) setOpen(asked, true);

  // One player at a time; another one of the same recording goes on where the last was.
  let last = null;
  document.addEventListener("play", (event) => {
    const player = event.target;
    if (last && last !== player) {
      const place = last.currentTime;
      const same = last.closest(".exhibit") === player.closest(".exhibit");
      const stopped = !last.paused && !last.ended;
      last.pause();
      if (same && stopped) player.currentTime = place;
    }
    last = player;
  }, true);
})();
