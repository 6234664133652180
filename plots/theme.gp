# theme.gp - the look that all figures have in common.
# Set before this file is loaded: format (svg, png or pdf), width and height in inches. gnuplot runs
# in a folder of its own: the data is figure.dat and the picture is figure.FORMAT.
# Fonts: in all formats a font of 100 is one inch; svg has 100 pixels per inch, png takes 200 pixels
# per inch. The cairo terminals take a point for 4/3 of a pixel or point, which fontscale undoes.
# Colours: Okabe and Ito, which readers with any colour vision tell apart. The shapes differ too, for
# print in grey.
set encoding utf8
set micro
set minussign
if (format eq 'svg') set terminal svg size 100*width, 100*height dynamic \
  font 'DejaVu Sans,17' linewidth 1.6 noenhanced background '#ffffff'
if (format eq 'png') set terminal pngcairo size 200*width, 200*height \
  font 'DejaVu Sans,17' fontscale 1.5 linewidth 3 noenhanced background '#ffffff'
if (format eq 'pdf') set terminal pdfcairo size width in, height in \
  font 'DejaVu Sans,17' fontscale 0.54 linewidth 1.6 noenhanced background '#ffffff'
set output 'figure.'.format
data = 'figure.dat'
unset key
set border 3 linecolor rgb '#555555'
set tics nomirror out textcolor rgb '#333333' scale 0.6
set grid linecolor rgb '#E4E4E4' linewidth 0.5 linetype 1
set pointintervalbox 0
set pointsize (format eq 'svg' ? 0.55 : 1.1) # the svg terminal draws points larger
sign = (format eq 'svg' ? 0.9 : 1.8) # size of the points in legends
array colour[8] = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', \
  '#E69F00', '#56B4E9', '#000000', '#7F7F7F']
array shape[8] = [7, 5, 9, 13, 11, 15, 6, 4]
ink = '#222222'
quiet = '#6B6B6B'
warned = '#A34A00'
