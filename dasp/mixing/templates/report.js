"use strict";
(() => {
  const button = document.getElementById("play"), place = document.getElementById("place"), time = document.getElementById("time");
  const sources = [...document.querySelectorAll("button.source")];
  const buffers = {}, gains = {};
  let context = null, nodes = [], playing = false, begun = 0, at = 0, chosen = "B", length = 0;
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer;
  const clock = s => Math.floor(s / 60) + ":" + String(Math.floor(s % 60)).padStart(2, "0");
  const now = () => playing ? Math.min(length, context.currentTime - begun) : at;
  const choose = key => {
    if (!(key in buffers)) return;
    chosen = key;
    for (const source of sources) source.setAttribute("aria-pressed", String(source.dataset.key === key));
    for (const [name, gain] of Object.entries(gains)) gain.gain.setTargetAtTime(name === key ? 1 : 0, context.currentTime, 0.005);
  };
  const stop = () => { at = now(); playing = false; for (const node of nodes) node.stop(); nodes = []; button.textContent = "Play"; };
  const start = async () => {
    await context.resume();
    if (at >= length - 0.01) at = 0;
    const when = context.currentTime + 0.03;
    begun = when - at;
    nodes = Object.entries(buffers).map(([key, buffer]) => {
      const node = context.createBufferSource();
      node.buffer = buffer; node.connect(gains[key]); node.start(when, at);
      return node;
    });
    playing = true; button.textContent = "Pause";
  };
  const seek = s => { const was = playing; if (was) stop(); at = Math.max(0, Math.min(length, s)); if (was) start(); show(); };
  const show = () => { const s = now(); place.value = length ? s / length : 0; time.textContent = clock(s) + " / " + clock(length); };
  const tick = () => { if (playing && now() >= length) { stop(); at = 0; } if (playing) show(); requestAnimationFrame(tick); };
  const toggle = () => playing ? stop() : start();
  button.addEventListener("click", toggle);
  place.addEventListener("input", () => seek(place.value * length));
  for (const source of sources) source.addEventListener("click", () => choose(source.dataset.key));
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || button.disabled) return;
    const key = event.key.toUpperCase();
    if (key in buffers) choose(key);
    else if (event.key === " " && !["BUTTON", "SUMMARY"].includes(event.target.tagName)) { event.preventDefault(); toggle(); }
    else if (["ArrowLeft", "ArrowRight"].includes(event.key) && !event.target.closest(".console, pre, input")) seek(now() + (event.key === "ArrowLeft" ? -2 : 2));
  });
  document.getElementById("copy").addEventListener("click", () => {
    const text = document.getElementById("json").textContent, told = document.getElementById("copied");
    const byHand = () => { const range = document.createRange(); range.selectNodeContents(document.getElementById("json")); const s = getSelection(); s.removeAllRanges(); s.addRange(range); document.execCommand("copy"); };
    (navigator.clipboard ? navigator.clipboard.writeText(text) : Promise.reject()).catch(byHand).then(() => { told.textContent = "Copied."; });
  });
  (async () => {
    try {
      context = new AudioContext();
      for (const script of document.querySelectorAll("script.audio")) {
        const key = script.dataset.key;
        buffers[key] = await context.decodeAudioData(bytes(script.textContent));
        gains[key] = context.createGain();
        gains[key].gain.value = 0;
        gains[key].connect(context.destination);
        length = Math.max(length, buffers[key].duration);
      }
      choose(chosen); button.disabled = false; button.textContent = "Play"; show(); tick();
    } catch (error) { button.textContent = "No sound: " + error.message; }
  })();
})();
