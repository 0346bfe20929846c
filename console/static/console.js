// The script of the console. Every page works without it; it reads parts of pages again, and keeps forms in place.
"use strict";

const FRAGMENT = { "X-Fragment": "1" };
const AWAY = "The server does not answer; trying again";
const CONTROLS = "input:not([type=hidden]), select, textarea";

async function fetched(url, options = {}) {
  const answer = await fetch(url, { credentials: "same-origin", ...options, headers: { ...FRAGMENT, ...options.headers } });
  const signin = answer.headers.get("X-Signin");
  if (signin) {
    location.assign(signin);
    throw new Error("signed out");
  }
  return answer;
}

// --- parts that are read again -------------------------------------------------------------------------------------

function poll(part) {
  const every = Number(part.dataset.every) || 5000;
  const state = document.querySelector("[data-live-state]");
  const text = document.querySelector("[data-live-text]");
  const show = (words) => {
    if (!state || text.textContent === words) return; // a screen reader would say the same again
    state.classList.toggle("is-stale", words !== "Live");
    text.textContent = words;
  };
  const again = async () => {
    if (document.hidden) return;
    // What somebody has focused stays where it is.
    if (part.contains(document.activeElement)) {
      show("Paused while a link below has the focus");
      return;
    }
    try {
      const answer = await fetched(part.dataset.poll);
      if (answer.ok) {
        const html = await answer.text();
        if (part.contains(document.activeElement)) return;
        part.innerHTML = html;
      }
      show(answer.ok ? "Live" : AWAY);
    } catch {
      show(AWAY);
    }
  };
  setInterval(again, every);
  part.addEventListener("focusout", () => setTimeout(again));
  document.addEventListener("visibilitychange", again);
}

// --- forms that change with what is chosen -------------------------------------------------------------------------

let latest = 0;

async function replaced(form, submitter) {
  const number = ++latest;
  const target = document.querySelector(form.dataset.partial);
  const body = new URLSearchParams(new FormData(form, submitter));
  const focused = document.activeElement && document.activeElement.id;
  const items = target.querySelectorAll(".item").length;
  const answer = await fetched(form.dataset.reload, { method: "POST", body });
  const html = await answer.text();
  if (number !== latest) return; // a later change has been answered already
  target.innerHTML = html;
  const button = submitter && submitter.dataset.list && document.getElementById(submitter.dataset.list);
  let again = button || (focused && document.getElementById(focused));
  if (button && target.querySelectorAll(".item").length > items) {
    const added = [...button.closest("fieldset").querySelectorAll(":scope > .fields > .item")].pop();
    again = (added && added.querySelector(CONTROLS)) || button;
  }
  if (again) again.focus();
  const said = document.querySelector("[data-partial-said]");
  const preview = target.querySelector("[data-preview]");
  if (said) said.textContent = submitter && !button && preview ? preview.innerText : "The fields of the form have changed.";
}

function watch(form) {
  form.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-partial-action]");
    if (!button) return;
    event.preventDefault();
    replaced(form, button).catch(() => form.requestSubmit(button));
  });
  form.addEventListener("change", (event) => {
    if (event.target.matches("[data-reload]")) replaced(form).catch(() => {});
  });
}

for (const part of document.querySelectorAll("[data-poll]")) poll(part);
for (const form of document.querySelectorAll("form[data-partial]")) watch(form);
