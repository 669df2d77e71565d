// How files come to the page: chosen, dropped or pasted.

/** Call begin(files) for every choice of files, at least one. */
export function takeFiles(input, target, begin) {
  const take = (files) => files.length && begin([...files]);
  input.addEventListener("click", () => (input.value = "")); // the same file may be chosen again
  input.addEventListener("change", () => take(input.files));
  window.addEventListener("paste", (event) => take(event.clipboardData.files));
  for (const kind of ["dragover", "drop"]) {
    window.addEventListener(kind, (event) => event.preventDefault()); // else a browser opens what is dropped, here or near
  }
  target.addEventListener("dragover", () => target.classList.add("over"));
  target.addEventListener("dragleave", () => target.classList.remove("over"));
  target.addEventListener("drop", (event) => {
    target.classList.remove("over");
    take(event.dataTransfer.files);
  });
}
