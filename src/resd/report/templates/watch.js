"use strict";
// Asks for the page again and again; puts a new one in place of the old, leaving the reader where they were.
(() => {
  const seconds = 2;
  let tag = null;

  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byKey = (root) => new Map(all("details[data-key]", root).map((each) => [each.dataset.key, each]));

  function say(words, lost) {
    const place = document.getElementById("live");
    place.textContent = words;
    place.classList.toggle("lost", lost);
  }

  // The section at the top of the window, and how far it is from there.
  function anchor() {
    const above = all("section[id]").filter((each) => each.getBoundingClientRect().top <= 1);
    const section = above[above.length - 1];
    return section ? { id: section.id, top: section.getBoundingClientRect().top } : null;
  }

  function replace(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    const [before, after] = [byKey(document), byKey(fresh)];
    for (const [key, details] of after) {
      if (before.has(key)) details.open = before.get(key).open;
    }
    for (const input of all("input:checked")) {
      const twin = fresh.getElementById(input.id);
      if (twin) twin.checked = true;
    }
    const where = anchor();
    const scrolled = all(".scroll, pre, .heat").map((each) => [each.scrollLeft, each.scrollTop]);
    const y = window.scrollY;
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    document.title = fresh.title;
    const boxes = all(".scroll, pre, .heat");
    if (boxes.length === scrolled.length) {
      boxes.forEach((box, i) => { [box.scrollLeft, box.scrollTop] = scrolled[i]; });
    }
    const section = where && document.getElementById(where.id);
    const target = section ? window.scrollY + section.getBoundingClientRect().top - where.top : y;
    window.scrollTo({ top: target, behavior: "instant" });
  }

  async function look() {
    try {
      const headers = tag ? { "If-None-Match": tag } : {};
      const answer = await fetch("/", { headers, cache: "no-store" });
      if (answer.status === 200) {
        const html = await answer.text();
        if (getSelection().isCollapsed) {  // text that is being copied stays
          replace(html);
          tag = answer.headers.get("ETag");
        }
        say("live", false);
      } else if (answer.status === 304) {
        say("live", false);
      } else {
        say(await answer.text(), true);
      }
    } catch {
      say("no answer: resd watch has ended", true);
    }
    setTimeout(look, seconds * 1000);
  }

  setTimeout(look, seconds * 1000);
})();
