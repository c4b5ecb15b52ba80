"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  // Light, dark, or as the system has it. Where nothing may be kept, it lasts as long as the page.
  const button = document.getElementById("theme");
  const words = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
  const keep = {
    get() { try { return localStorage.getItem("kinset-theme"); } catch { return null; } },
    set(theme) { try { localStorage.setItem("kinset-theme", theme); } catch { /* a page from a file may not be allowed to */ } },
  };
  const show = (theme) => {
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
    button.textContent = words[theme];
    button.value = theme;
  };
  show(words[keep.get()] ? keep.get() : "auto");
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = { auto: "dark", dark: "light", light: "auto" }[button.value];
    keep.set(next);
    show(next);
  });

  // A link to a cluster that is folded up opens it.
  const reveal = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    const target = id && document.getElementById(id);
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();

  // Thumbnails are cut to squares. A click, or Enter, shows the whole picture; arrows lead to its neighbors in the line.
  const dialog = document.getElementById("look");
  const stored = document.getElementById("wholes");
  const wholes = stored ? JSON.parse(stored.textContent) : {};
  const [whole, enlarged, said] = [new Image(), dialog.querySelector(".t"), dialog.querySelector("p")];
  dialog.prepend(whole);
  let shown = null;
  const step = (cell, event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const cells = by ? all(".t[tabindex]", cell.closest(".line")) : [];
    const next = cells[cells.indexOf(cell) + by];
    if (!next) return null;
    event.preventDefault();
    cell.tabIndex = -1;
    next.tabIndex = 0;
    return next;
  };
  const open = (cell) => {
    shown = cell;
    const uri = wholes[cell.dataset.whole];
    whole.hidden = !uri;
    enlarged.hidden = !!uri;
    said.textContent = cell.getAttribute("aria-label");
    if (uri) {
      whole.src = uri;
      whole.alt = said.textContent;
    } else {
      const sheet = cell.closest(".sheet");
      enlarged.style.imageRendering = sheet.matches(".crisp") ? "pixelated" : "auto";
      for (const name of ["--sprite", "--n", "--m"]) enlarged.style.setProperty(name, sheet.style.getPropertyValue(name));
      for (const name of ["--x", "--y"]) enlarged.style.setProperty(name, cell.style.getPropertyValue(name));
    }
    if (!dialog.open) dialog.showModal();
  };
  for (const line of all(".line")) {
    all(".t[data-whole]", line).forEach((cell, place) => {
      cell.tabIndex = place === 0 ? 0 : -1;
      cell.setAttribute("role", "button");
    });
  }
  document.addEventListener("click", (event) => {
    const cell = event.target.closest(".t[tabindex]");
    if (cell) open(cell); else if (event.target === dialog || event.target.closest("#look button")) dialog.close();
  });
  document.addEventListener("keydown", (event) => {
    if (dialog.open) {
      const next = step(shown, event);
      if (next) open(next);
      return;
    }
    const cell = event.target.closest?.(".t[tabindex]");
    if (!cell) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open(cell);
    } else step(cell, event)?.focus();
  });

  // What is folded up is printed too.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])").filter((one) => !one.matches(".cluster"));
    for (const one of folded) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of folded) one.open = false; });

  // Many clusters: find and sort.
  const finder = document.querySelector(".finder");
  if (finder) {
    finder.hidden = false;
    const sheets = document.getElementById("sheets");
    const blocks = all(".cluster", sheets);
    const find = document.getElementById("find");
    find.addEventListener("input", () => {
      const wanted = find.value.trim().toLowerCase();
      for (const block of blocks) {
        block.hidden = wanted !== "" && block.dataset.number !== wanted && !block.dataset.words.includes(wanted);
      }
    });
    document.getElementById("sort").addEventListener("change", (event) => {
      const by = event.target.value;
      const sign = by === "number" ? 1 : -1;
      blocks.sort((a, b) => sign * (a.dataset[by] - b.dataset[by]) || a.dataset.number - b.dataset.number);
      sheets.append(...blocks);
    });
    const unfold = document.getElementById("unfold");
    unfold.addEventListener("click", () => {
      const open = unfold.textContent === "Open all";
      for (const block of blocks) if (!block.hidden) block.open = open;
      unfold.textContent = open ? "Close all" : "Open all";
    });
  }

  // The map: the picture beside the pointer.
  const peek = document.querySelector(".peek");
  if (peek) {
    const texts = JSON.parse(document.getElementById("map-words").textContent);
    const columns = Number(getComputedStyle(peek).getPropertyValue("--n"));
    const [picture, line] = [peek.querySelector(".t"), peek.querySelector(".words")];
    let near = null;
    const leave = () => {
      if (near) near.classList.remove("near");
      near = null;
      peek.classList.remove("up");
    };
    const look = (event) => {
      const point = event.target.closest("[data-i]");
      if (!point) { leave(); return; }
      if (near !== point) {
        if (near) near.classList.remove("near");
        near = point;
        point.classList.add("near");
        const place = Number(point.dataset.i);
        picture.style.setProperty("--x", place % columns);
        picture.style.setProperty("--y", Math.floor(place / columns));
        line.textContent = texts[place];
        peek.classList.add("up");
      }
      const { width, height } = peek.getBoundingClientRect();
      peek.style.left = `${Math.max(6, Math.min(event.clientX + 16, innerWidth - width - 8))}px`;
      peek.style.top = `${Math.max(6, event.clientY + 18 + height > innerHeight ? event.clientY - height - 14 : event.clientY + 18)}px`;
    };
    for (const map of all(".maps .fig")) {
      map.addEventListener("pointermove", look);
      map.addEventListener("pointerdown", look);
      map.addEventListener("pointerleave", leave);
    }
  }
})();
