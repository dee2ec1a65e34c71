() => {
  // The theme a person chose last; without one, the system's.
  const theme = localStorage.getItem('workbench-theme');
  if (theme) document.body.classList.toggle('dark', theme === 'dark');
  // Of Gradio's own: the keyboard must reach the box of a long text, which scrolls; the name of a small picture is its caption.
  const mend = () => {
    document.querySelectorAll(':is(#yaml, #job-spec) .cm-scroller[tabindex="-1"]').forEach(box => { box.tabIndex = 0; });
    document.querySelectorAll('#grid .thumbnail-item[aria-label]:has(.caption-label)').forEach(button => {
      button.removeAttribute('aria-label');
      button.querySelector('img')?.setAttribute('alt', '');
    });
  };
  new MutationObserver(mend).observe(document.body, {childList: true, subtree: true});
  // Arrow keys step through the pictures while the comparison is on screen.
  document.addEventListener('keydown', event => {
    const name = {ArrowLeft: 'compare-back', ArrowRight: 'compare-forth'}[event.key];
    const button = name && document.getElementById(name);
    if (!button || button.offsetParent === null || event.target.closest('input, textarea, select, [role=slider], [role=application], .cm-editor, #grid')) return;
    button.click();
  });
}
