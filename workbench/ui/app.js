() => {
  // The theme a person chose last; without one, the system's.
  const theme = localStorage.getItem('workbench-theme');
  if (theme) document.body.classList.toggle('dark', theme === 'dark');
  // Arrow keys step through the pictures while the comparison is on screen.
  document.addEventListener('keydown', event => {
    const name = {ArrowLeft: 'compare-back', ArrowRight: 'compare-forth'}[event.key];
    const button = name && document.getElementById(name);
    if (!button || button.offsetParent === null || event.target.closest('input, textarea, select, [role=slider], [role=application], .cm-editor, #grid')) return;
    button.click();
  });
}
